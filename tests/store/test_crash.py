"""Killed at any moment, the database opens clean, and everything that was acknowledged is there."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from store_samples import cell, run

from benchctl.store.store import Store

ROUNDS = 6
MEASUREMENTS = 40
#: says each result id after it was stored; small log, so that many of its commits also fold the log into the file
WRITER = """
import sys
from store_samples import cell, result
from benchctl.record import Measurement
from benchctl.store.store import Store

path, run_id, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store.open(path) as store:
    raw = store._engine.raw_connection()
    raw.cursor().execute("PRAGMA wal_autocheckpoint=8")
    raw.close()
    for i in range(count):
        numbers = [Measurement(metric="latency_seconds", value=i + rep / 64, rep=rep) for rep in range(int(sys.argv[4]))]
        print(store.add_result(run_id, result(cell(), *numbers)), i, flush=True)
"""


def start(database: Path, run_id: str, count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", WRITER, str(database), run_id, str(count), str(MEASUREMENTS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def check(database: Path, acknowledged: dict[int, int]) -> None:
    with Store.open(database) as store:
        for number, i in acknowledged.items():
            assert [m.value for m in store.measurements(number)] == [i + rep / 64 for rep in range(MEASUREMENTS)]
    with closing(sqlite3.connect(database)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        incomplete = "SELECT result_id FROM results WHERE (SELECT count(*) FROM measurements m WHERE m.result_id = results.result_id) != ?"
        assert raw.execute(incomplete, (MEASUREMENTS,)).fetchall() == []


def test_kill_in_the_middle_of_writing(database: Path) -> None:
    with Store.open(database) as store:
        store.begin_run(run(), [cell()])
    acknowledged: dict[int, int] = {}
    for round_ in range(ROUNDS):
        writer = start(database, "run-1", 1_000_000)
        assert writer.stdout
        # in the middle of its work, however fast the disk is, and at another moment of a write each time
        lines = [writer.stdout.readline() for _ in range(10 + round_)]
        time.sleep(0.0007 * round_)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        # the last line may be torn: its number was being said
        pairs = [line.split() for line in lines]
        acknowledged |= {int(number): int(i) for number, i in (pair for pair in pairs[:-1] if len(pair) == 2)}
        check(database, acknowledged)
    assert len(acknowledged) >= 10 * ROUNDS - ROUNDS


def test_two_writers_and_a_reader(database: Path) -> None:
    with Store.open(database) as store:
        for name in ("a", "b"):
            store.begin_run(run(name), [cell()])
    writers = [start(database, name, 60) for name in ("a", "b")]
    with Store.open(database, read_only=True) as reader:
        counts = []
        while any(writer.poll() is None for writer in writers):
            counts.append(sum(r.results for r in reader.runs()))
    said = [dict(tuple(map(int, line.split())) for line in writer.communicate()[0].splitlines()) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(each) for each in said] == [60, 60]
    assert counts == sorted(counts)
    check(database, said[0] | said[1])
