"""What many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the database or the weights of whoever runs it, and none asks a hub."""
    for name in ("BENCHCTL_DB", "BENCHCTL_WEIGHTS", "BENCHCTL_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real clips, where there is one."""
    root = Path(os.environ.get("BENCHCTL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no real clips: set BENCHCTL_DATA to the folder that holds them")
    return root
