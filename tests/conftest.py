"""What many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# before torch is imported: tests run side by side, and threads that spin while they wait starve each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# no test asks a hub
os.environ["HF_HUB_OFFLINE"] = "1"

import postgresql_server
import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="session")
def _stand_in_for_a_gpu() -> None:
    """torch makes a queue for every kind of device when the first backward pass of a process runs; none can be added after it.

    A worker process predicts before it trains. Here both happen in one process, in any order.
    """
    from benchctl.probes.prediction import fake_device

    fake_device.register()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the database or the weights of whoever runs it."""
    for name in ("BENCHCTL_DB", "BENCHCTL_WEIGHTS", "BENCHCTL_FLOW", "BENCHCTL_TRACKS", "BENCHCTL_INDEX", "BENCHCTL_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[str]:
    if given := os.environ.get("BENCHCTL_TEST_POSTGRES"):
        yield given
        return
    if reason := postgresql_server.absent():
        pytest.skip(reason)
    with postgresql_server.server() as url:
        yield url


@pytest.fixture
def postgresql(_postgresql: str) -> str:
    """URL of an empty database: that of BENCHCTL_TEST_POSTGRES, or else of a server that the tests start."""
    postgresql_server.empty(_postgresql)
    return _postgresql


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real clips, where there is one."""
    root = Path(os.environ.get("BENCHCTL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no real clips: set BENCHCTL_DATA to the folder that holds them")
    return root
