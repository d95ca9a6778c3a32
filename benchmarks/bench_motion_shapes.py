"""Making motion_shapes with a process for each core against one process, as a ratio; clips a minute are printed.

Both make the same clips of 32 x 112 x 112, in turns in the same run. What the cores have to spare beside other work is measured in turn
with them, by processes that only count, and the ratio is judged by theirs. The start of the processes is part of it. The target is
1,000 clips in two minutes on two cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchctl.data import motion_shapes
from benchctl.data.motion_shapes import Options

ROUNDS = 3
#: of what processes that only count are faster than one
SHARE = 0.65
COUNT = "sum(i * i for i in range(30_000_000))"


def seconds(run: Callable[[int], None], processes: int) -> float:
    start = time.perf_counter()
    run(processes)
    return time.perf_counter() - start


def count(processes: int) -> None:
    for running in [subprocess.Popen([sys.executable, "-c", COUNT]) for _ in range(processes)]:
        running.wait()


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_processes(benchmark: BenchmarkFixture, tmp_path: Path, difficulty: str) -> None:
    given = {"train_clips_per_class": 4, "test_clips_per_class": 1, "frames": 32, "size": 112, "difficulty": difficulty}
    options = Options.model_validate(given)
    clips, cores = len(motion_shapes._clips(options)), motion_shapes._processes(options)
    if cores == 1:
        pytest.skip("one core")

    def make(processes: int) -> None:
        folder = tmp_path / f"{time.monotonic_ns()}"
        folder.mkdir()
        motion_shapes._generate(folder, options, processes)

    make(1)  # what is loaded on first use
    rounds = [[seconds(run, n) for run in (make, count) for n in (1, cores)] for _ in range(ROUNDS)]
    alone, together, counted, counted_together = (statistics.median(column) for column in zip(*rounds))
    found, possible = alone / together, cores * counted / counted_together
    print(
        f"\n{difficulty}: {cores} processes {found:.2f} times as fast as one, and {possible:.2f} times where they only count; "
        f"{60 * clips / together:.0f} clips a minute, {60 * clips / alone:.0f} by one"
    )
    benchmark.extra_info.update(times_faster=found, times_possible=possible, clips_a_minute=60 * clips / together)
    benchmark.pedantic(make, args=(cores,), rounds=1)
    assert found >= SHARE * possible
