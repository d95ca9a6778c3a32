"""A store on SQLite, and on PostgreSQL where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchctl.store.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, database: Path) -> str:
    return str(database) if request.param == "sqlite" else str(request.getfixturevalue("postgresql"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened
