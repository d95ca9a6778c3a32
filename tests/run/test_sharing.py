"""Several runs on one database: each cell is executed by one of them, and by another where that one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

from benchctl.store.store import Store

SUITE = """\
name: shared
task: profile
methods: [timesformer-tiny]
sweep:
  - {frames: [2, 4, 6], resolution: 32, batch_size: [1, 2]}
measure: [memory, flops, params]
"""
CELLS = 6
LEARN = """\
name: learn
task: [train, evaluate]
methods: [videomae-tiny]
dataset: {name: motion_shapes, options: {train_clips_per_class: 1, test_clips_per_class: 1, frames: 8, size: 32}}
sweep: [{frames: 4, resolution: 32, batch_size: 4}]
budget: {match_on: steps, amount: 3}
recipe: {optimizer: sgd, warmup_fraction: 0, sampling: segment, eval_clips: 1}
seeds: [0, 1]
"""
#: `benchctl` with other lease times, that writes down each execution as it begins
BENCHCTL = """
import functools, os, sys, time
from benchctl.run import runner

executions, lease, renew = sys.argv.pop(1), float(sys.argv.pop(1)), float(sys.argv.pop(1))
runner.Settings = functools.partial(runner.Settings, lease_s=lease, renew_s=renew, look_again_s=0.3)
ask = runner.ask

def noted(worker, job, *given, **named):
    with open(executions, "a") as file:
        file.write(f"{os.getpid()} {job.cell.id} {time.time()}\\n")
    return ask(worker, job, *given, **named)

runner.ask = noted
from benchctl.cli.app import main
main()
"""
LEASE_SECONDS, RENEW_SECONDS = 8.0, 1.0

pytestmark = pytest.mark.slow


@dataclass
class Runs:
    """Runs that share a database, and what they executed."""

    folder: Path
    url: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "executions"

    def start(self, *more: str, lease_s: float = LEASE_SECONDS, renew_s: float = RENEW_SECONDS) -> subprocess.Popen[str]:
        arguments = [str(self.log), str(lease_s), str(renew_s), "run", "suite.yaml", "--db", self.url, "--workers", "1", "--json", *more]
        environment = {**os.environ, "BENCHCTL_CACHE": str(self.folder / "cache")}
        process = subprocess.Popen(
            [sys.executable, "-c", BENCHCTL, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment,
        )
        self.processes.append(process)
        return process

    def executions(self) -> list[tuple[int, str, float]]:
        """Process, cell and time of each execution that began."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(pid), cell, float(when)) for pid, cell, when in map(str.split, lines)]

    def running(self, count: int, within_s: float = 120) -> dict[int, str]:
        """Wait until `count` runs each execute a cell; those, by process."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            last = {pid: cell for pid, cell, _ in self.executions()}
            if len(last) >= count:
                return last
            time.sleep(0.05)
        raise AssertionError(f"after {within_s} s only {self.executions()}")

    def end(self, process: subprocess.Popen[str]) -> dict[str, object]:
        """What the run said when it ended well."""
        said, complaints = process.communicate(timeout=180)
        assert process.returncode == 0, complaints
        assert "Traceback" not in complaints
        document: dict[str, object] = json.loads(said)
        return document

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with Store.open(self.url, read_only=True) as store, store._read() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def check_whole(self, cells: int) -> None:
        """Each cell has one result, and nobody holds one."""
        assert self.rows("SELECT cell_id, count(*) FROM results GROUP BY cell_id HAVING count(*) <> 1") == []
        assert self.rows("SELECT outcome, count(*) FROM results GROUP BY outcome") == [("ok", cells)]
        assert self.rows("SELECT * FROM claims") == []


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `benchctl plan` predicts of the suite, by key: these runs need not predict it each for itself."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "suite.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "benchctl", "plan", "suite.yaml", "--db", "planned.db"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=180)
    with Store.open(folder / "planned.db", read_only=True) as store, store._read() as connection:
        return dict(connection.execute(text("SELECT key, json FROM predictions")).tuples().all())


@pytest.fixture(params=["sqlite", "postgresql"])
def runs(request: pytest.FixtureRequest, tmp_path: Path, predictions: dict[str, str]):
    (tmp_path / "suite.yaml").write_text(SUITE)
    url = str(tmp_path / "results.db") if request.param == "sqlite" else str(request.getfixturevalue("postgresql"))
    with Store.open(url) as store:
        for key, content in predictions.items():
            store.put_prediction(key, content)
    made = Runs(tmp_path, url)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_four_runs_execute_each_cell_once(runs: Runs):
    for _ in range(4):
        runs.start()
    said = [runs.end(process) for process in runs.processes]
    assert Counter(cell for _, cell, _ in runs.executions()).most_common(1)[0][1] == 1
    assert len(runs.executions()) == CELLS
    assert sum(each["outcomes"].get("ok", 0) for each in said) == CELLS
    for each in said:
        assert each["not_run"] == 0
        assert each["reused"] + each["outcomes"].get("ok", 0) + each["done_by_other_runs"] == CELLS
    runs.check_whole(CELLS)
    assert runs.rows("SELECT status, count(*) FROM runs GROUP BY status") == [("finished", 4)]


def test_two_of_four_runs_are_killed_in_the_middle_of_a_cell(runs: Runs):
    for _ in range(4):
        runs.start("--set", "sweep.0.frames=[2,4]")
    victims = dict(list(runs.running(2).items())[:2])
    killed_at = time.time()
    for process in runs.processes:
        if process.pid in victims:
            process.kill()
    said = [runs.end(process) for process in runs.processes if process.pid not in victims]
    for each in said:
        assert (each["cells"], each["not_run"]) == (4, 0)
    runs.check_whole(4)
    executions = runs.executions()
    assert Counter(cell for _, cell, _ in executions) == Counter([*{cell for _, cell, _ in executions}, *victims.values()])
    for cell in victims.values():
        (_, first), (successor, second) = [(pid, when) for pid, each, when in executions if each == cell]
        assert successor not in victims
        assert second - killed_at > LEASE_SECONDS - 2 * RENEW_SECONDS - 1, "not before its lease was over"
        assert first < killed_at
    assert runs.rows("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status") == [("finished", 2), ("running", 2)]


def test_a_run_that_stood_still_stores_no_second_result(runs: Runs):
    first = runs.start("--only", "*2x32*", lease_s=3, renew_s=2)
    (cell,) = runs.running(1).values()
    first.send_signal(signal.SIGSTOP)
    second = runs.end(runs.start("--only", "*2x32*"))
    assert cell in {cell for pid, cell, _ in runs.executions() if pid != first.pid}
    first.send_signal(signal.SIGCONT)
    ended = runs.end(first)
    assert (ended["outcomes"], ended["done_by_other_runs"], ended["not_run"]) == ({}, second["cells"], 0)
    runs.check_whole(second["cells"])


def test_ctrl_c_gives_the_cell_back(runs: Runs):
    first = runs.start(lease_s=600, renew_s=100)
    runs.running(1)
    held = runs.rows("SELECT owner FROM claims")
    assert len(held) == 1
    assert str(held[0][0]).endswith(f", process {first.pid}")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert runs.rows("SELECT * FROM claims") == []
    assert runs.rows("SELECT outcome FROM results") == [("interrupted",)]


def test_evaluations_wait_for_the_trainings_of_other_runs(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(LEARN)
    runs = Runs(tmp_path, str(tmp_path / "results.db"))
    try:
        for _ in range(2):
            runs.start()
        said = [runs.end(process) for process in runs.processes]
    finally:
        for process in runs.processes:
            process.kill()
            process.communicate()
    assert sum(each["outcomes"].get("ok", 0) for each in said) == 4
    assert len(runs.executions()) == 4
    runs.check_whole(4)
