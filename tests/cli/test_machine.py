"""What a run says of itself."""

from __future__ import annotations

import pytest

from benchctl.cli.machine import without_passwords


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("benchctl run s --db postgresql://me:secret@host:5432/name", "benchctl run s --db postgresql://me:***@host:5432/name"),
        ("benchctl run s --db=postgresql+psycopg://:secret@/name --fresh", "benchctl run s --db=postgresql+psycopg://:***@/name --fresh"),
        (
            "benchctl run s --db 'postgresql://host/name?password=secret&user=me'",
            "benchctl run s --db 'postgresql://host/name?password=***&user=me'",
        ),
        (
            "benchctl run s --db postgresql://me@host:5432/name --only a:b@c",
            "benchctl run s --db postgresql://me@host:5432/name --only a:b@c",
        ),
        ("benchctl run s --db sqlite:///a.db --set 'a=[1, 2]'", "benchctl run s --db sqlite:///a.db --set 'a=[1, 2]'"),
    ],
)
def test_passwords_are_not_recorded(typed: str, shown: str) -> None:
    assert without_passwords(typed) == shown
