"""A lease: renewed while its holder lives, given back at its end, and ended work where it is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchctl.errors import StoreError
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Environment, RunRecord
from benchctl.run.lease import Lease
from benchctl.spec import Cell
from benchctl.store.claims import Claim, ClaimAnswer
from benchctl.store.store import Store
from benchctl.vocabulary import ClipShape

NOW = "2026-01-01T00:00:00+00:00"
CELL = Cell(
    task="profile",
    method="timesformer-b",
    config={},
    shape=ClipShape(frames=8, resolution=224),
    precision="fp32",
    attention="eager",
    pretrained=False,
    pad=False,
    num_classes=400,
    seed=0,
    recipe=Recipe(),
)
MINE, OTHER = Claim(CELL.id, "mine", "here"), Claim(CELL.id, "other", "there")
RESULT = CellResult(cell_id=CELL.id, outcome="ok", started_at=NOW, seconds=0)
SECONDS, RENEW = 1.0, 0.1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    here = Environment(benchctl="0", python="3", platform="linux", cpu="x", cpu_cores=1, memory_bytes=1)
    with Store.open(tmp_path / "results.db") as opened:
        for claim in (MINE, OTHER):
            opened.begin_run(
                RunRecord(run_id=claim.run_id, suite="s", suite_json="{}", command="", started_at=NOW, environment=here), [CELL]
            )
        yield opened


def lease(store: Store, seconds: float = SECONDS, renew_seconds: float = RENEW) -> Lease:
    assert store.claim(MINE, seconds) is ClaimAnswer.CLAIMED
    return Lease(store, MINE, seconds=seconds, renew_seconds=renew_seconds)


def test_it_is_renewed_as_long_as_its_holder_lives(store: Store) -> None:
    with lease(store) as held:
        time.sleep(2 * SECONDS)
        assert store.claim(OTHER, SECONDS) is ClaimAnswer.HELD
        assert not held.stop.is_set()
    assert store.claim(OTHER, SECONDS) is ClaimAnswer.CLAIMED, "given back"


def test_it_is_given_back_where_the_work_fails(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), lease(store):
        raise KeyboardInterrupt
    assert store.holders([CELL.id]) == {}


def test_a_result_ends_it(store: Store) -> None:
    with lease(store) as held:
        assert held.settle(RESULT)
        # what it finds when it wants to renew is no loss
        time.sleep(3 * RENEW)
        assert not held.lost
    assert store.latest_results([CELL.id])[CELL.id].run_id == "mine"


def test_lost_it_ends_the_work_at_once_and_stores_nothing(store: Store) -> None:
    ended: list[bool] = []
    with lease(store, seconds=0.2, renew_seconds=0.5) as held:
        held.on_lost = lambda: ended.append(held.stop.is_set())
        time.sleep(0.3)
        assert store.claim(OTHER, 60) is ClaimAnswer.CLAIMED
        assert held.stop.wait(10)
        assert (held.lost, ended) == (True, [False])
        assert not held.settle(RESULT)
    assert store.latest_results([CELL.id]) == {}
    assert store.holders([CELL.id]) == {CELL.id: OTHER}, "the other's is not given back"


def test_a_database_that_is_out_of_reach_is_no_loss_until_it_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> bool:
        raise StoreError("no connection to the database server")

    with lease(store) as held:
        monkeypatch.setattr(store, "renew", unreachable)
        assert not held.stop.wait(2 * SECONDS)
        monkeypatch.undo()
        assert not held.stop.wait(SECONDS)
        assert store.claim(OTHER, 60) is ClaimAnswer.HELD
        monkeypatch.setattr(store, "renew", unreachable)
        time.sleep(2 * SECONDS)
        assert store.claim(OTHER, 60) is ClaimAnswer.CLAIMED
        monkeypatch.undo()
        assert held.stop.wait(10)
        assert held.lost
