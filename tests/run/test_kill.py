"""Kill the runner at any moment: no cell is lost, none runs twice, the database is whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUITE = """\
name: killed
task: profile
methods: [timesformer-tiny, videomae-tiny]
sweep:
  - {frames: [2, 4, 6, 8, 10, 12], resolution: 32, batch_size: [1, 2]}
measure: [memory, flops, params]
"""


def command(folder: Path, *more: str) -> list[str]:
    suite = folder / "suite.yaml"
    suite.write_text(SUITE)
    return [sys.executable, "-m", "benchctl", "run", str(suite), "--db", str(folder / "results.db"), "--workers", "2", *more]


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def children(pid: int) -> set[int]:
    """Processes below `pid`, by /proc."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.add(int(stat.parent.name))
    return found


def gone(pids: set[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_kill_9_in_the_middle_then_the_same_command(tmp_path: Path):
    # every cell is only predicted, so that both kinds of progress (results and cached predictions) are quick
    arguments = command(tmp_path, "--set", "measure=[flops,params]")
    database = tmp_path / "results.db"
    kept: set[object] = set()
    for wanted in (3, 9):
        runner = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert runner.stderr is not None
        finished = 0
        for line in runner.stderr:
            finished += line.startswith("[")
            if finished >= wanted:
                break
        workers = children(runner.pid)
        assert workers, "the runner has workers"
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait()
        runner.stderr.close()
        assert gone(workers, within_s=40), "workers end with their runner"
        now = {row[0] for row in rows(database, "SELECT cell_id FROM results")}
        assert kept <= now
        assert len(now) >= wanted, "every cell that was reported as finished is there"
        kept = now
    assert len(kept) < 24, "it was killed in the middle"

    subprocess.run(arguments, check=True, capture_output=True, timeout=300)
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    counts = rows(database, "SELECT cell_id, count(*) FROM results GROUP BY cell_id")
    assert len(counts) == 24, "no cell is lost"
    assert {count for _, count in counts} == {1}, "none ran twice"


def test_ctrl_c_ends_with_130_and_the_next_run_resumes(tmp_path: Path):
    # four cells that are really measured, each in a worker of its own
    arguments = command(tmp_path, "--set", "sweep.0.frames=[2,4]", "--set", "sweep.0.batch_size=1", "--set", "measure=[memory]")
    database = tmp_path / "results.db"
    runner = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert runner.stderr is not None
    for line in runner.stderr:
        if line.startswith("[1/"):
            break
    began = time.monotonic()
    runner.send_signal(signal.SIGINT)
    said, _ = runner.communicate(timeout=60)
    assert time.monotonic() - began < 20, "it does not finish the suite first"
    assert runner.returncode == 130
    assert "not run" in said
    assert "Traceback" not in said
    assert rows(database, "SELECT status FROM runs") == [("interrupted",)]
    before = set(rows(database, "SELECT cell_id FROM results WHERE outcome = 'ok'"))
    assert 1 <= len(before) < 4

    again = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=300)
    assert f"{len(before)} of 4 cells are done already" in again.stderr
    counts = rows(database, "SELECT cell_id, count(*) FROM results WHERE outcome = 'ok' GROUP BY cell_id")
    assert sorted(count for _, count in counts) == [1, 1, 1, 1]
