"""Of several runs that want a cell, one gets it; it keeps it as long as it says so, and nobody does again what was done."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from store_samples import cell, result, run

from benchctl.store.claims import Claim, ClaimAnswer, ClaimLost
from benchctl.store.store import Store

CELL = cell()
A, B = (Claim(CELL.id, name, f"host, process {name}") for name in ("run-a", "run-b"))
LONG, SHORT = 60.0, 0.3


@pytest.fixture(autouse=True)
def two_runs(store: Store) -> None:
    for claim in (A, B):
        store.begin_run(run(claim.run_id), [CELL])


def test_one_holds_it_until_it_gives_it_back(store: Store) -> None:
    assert store.claim(A, LONG) is ClaimAnswer.CLAIMED
    assert store.claim(B, LONG) is ClaimAnswer.HELD
    assert store.holders([CELL.id, "another"]) == {CELL.id: A}
    assert not store.release(B), "it is not B's"
    assert not store.renew(B, LONG)
    assert store.release(A)
    assert not store.release(A)
    assert not store.renew(A, LONG)
    assert store.holders([CELL.id]) == {}
    assert store.claim(B, LONG) is ClaimAnswer.CLAIMED


def test_claiming_again_is_no_conflict_with_oneself(store: Store) -> None:
    assert store.claim(A, SHORT) is ClaimAnswer.CLAIMED
    assert store.claim(A, LONG) is ClaimAnswer.CLAIMED
    time.sleep(2 * SHORT)
    assert store.claim(B, LONG) is ClaimAnswer.HELD


def test_it_is_lost_when_its_time_is_over_and_another_wants_it(store: Store) -> None:
    assert store.claim(A, SHORT) is ClaimAnswer.CLAIMED
    time.sleep(2 * SHORT)
    assert store.holders([CELL.id]) == {}
    assert store.claim(B, LONG) is ClaimAnswer.CLAIMED
    assert not store.renew(A, LONG)
    assert not store.release(A)
    with pytest.raises(ClaimLost, match=r"went to another run"):
        store.add_result("run-a", result(CELL), A)
    assert store.latest_results([CELL.id]) == {}, "nothing was stored"
    assert store.add_result("run-b", result(CELL), B)


def test_renewed_it_is_kept_also_a_little_late(store: Store) -> None:
    assert store.claim(A, SHORT) is ClaimAnswer.CLAIMED
    time.sleep(2 * SHORT)
    assert store.renew(A, LONG), "nobody took it meanwhile"
    assert store.claim(B, LONG) is ClaimAnswer.HELD


def test_a_result_releases_it_and_whoever_comes_next_learns_of_it(store: Store) -> None:
    assert store.claim(A, LONG) is ClaimAnswer.CLAIMED
    first = store.add_result("run-a", result(CELL), A)
    assert store.holders([CELL.id]) == {}
    assert store.claim(B, LONG) is ClaimAnswer.ATTEMPTED
    assert store.holders([CELL.id]) == {}, "only looked"
    assert store.claim(B, LONG, after=first) is ClaimAnswer.CLAIMED
    with pytest.raises(ClaimLost):
        store.add_result("run-a", result(CELL), A)


def test_what_is_stored_late_but_before_anybody_took_it_counts(store: Store) -> None:
    assert store.claim(A, SHORT) is ClaimAnswer.CLAIMED
    time.sleep(2 * SHORT)
    assert store.add_result("run-a", result(CELL), A)
    assert store.claim(B, LONG) is ClaimAnswer.ATTEMPTED


def test_only_what_a_run_planned_can_be_claimed(store: Store) -> None:
    with pytest.raises(DBAPIError):
        store.claim(A._replace(cell_id=cell(9).id), LONG)
    with pytest.raises(DBAPIError):
        store.claim(A._replace(run_id="none"), LONG)


def test_threads_of_a_run_share_a_store(store: Store) -> None:
    assert store.claim(A, LONG) is ClaimAnswer.CLAIMED
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: store.renew(A, LONG), range(40)))


def test_processes_that_make_the_same_database_at_once(url: str, store: Store, tmp_path: Path) -> None:
    if store.location.path is None:
        with store._write() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    else:
        url = str(tmp_path / "another" / "results.db")
    code = "import sys; from benchctl.store.store import Store; sys.stdin.readline(); Store.open(sys.argv[1]).close()"
    makers = [subprocess.Popen([sys.executable, "-c", code, url], stdin=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdin
        maker.stdin.write("\n")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate(timeout=60)
    assert [maker.returncode for maker in makers] == [0] * 4
    with Store.open(url, read_only=True) as made:
        assert made.runs() == []


#: takes every cell that it can get, and says which
TAKER = """
import sys, time
from store_samples import cell, result, run
from benchctl.store.claims import Claim, ClaimAnswer
from benchctl.store.store import Store

url, name, count, begin = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with Store.open(url) as store:
    cells = [cell(100 + i) for i in range(count)]
    # each adds the cells in another order
    store.begin_run(run(name), sorted(cells, key=lambda c: hash((name, c.id))))
    time.sleep(max(0, begin - time.time()))
    for each in cells:
        claim = Claim(each.id, name, name)
        answer = store.claim(claim, 60)
        print(each.id, answer.value, flush=True)
        if answer is ClaimAnswer.CLAIMED:
            store.add_result(name, result(each), claim)
"""


def test_processes_that_want_the_same_cells_at_once(store: Store, url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    count, begin = 30, time.time() + 4
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, url, f"taker-{i}", str(count), str(begin)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for i in range(4)
    ]
    said = [taker.communicate(timeout=60)[0].split() for taker in takers]
    assert [taker.returncode for taker in takers] == [0] * 4
    ids = [cell(100 + i).id for i in range(count)]
    claimed = [cell_id for each in said for cell_id, answer in zip(each[::2], each[1::2]) if answer == "claimed"]
    assert sorted(claimed) == sorted(ids), "each cell was had exactly once"
    assert all(each[::2] == ids for each in said)
    with store._read() as connection:
        counts = connection.exec_driver_sql("SELECT cell_id, count(*) FROM results GROUP BY cell_id").all()
        left = connection.exec_driver_sql("SELECT count(*) FROM claims").scalar_one()
    assert {n for _, n in counts} == {1}
    assert (len(counts), left) == (count, 0)
