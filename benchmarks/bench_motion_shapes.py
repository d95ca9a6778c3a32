"""Making motion_shapes with a process for each core against one process, as a ratio; clips a minute are printed.

Both make the same clips of 32 x 112 x 112, in turns in the same run, so that a busy machine slows both. What the start of the processes
takes is part of it. The target is 1,000 clips in two minutes on two cores.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchctl.data import motion_shapes
from benchctl.data.motion_shapes import Options

ROUNDS = 3
#: of what so many processes could at best be faster than one
SHARE_OF_CORES = 0.6


@pytest.mark.parametrize("difficulty", ["plain", "easy", "medium", "hard"])
def test_processes(benchmark: BenchmarkFixture, tmp_path: Path, difficulty: str) -> None:
    classes = 8 if difficulty == "plain" else 18
    given = {"train_clips_per_class": -(-120 // classes), "test_clips_per_class": 1, "frames": 32, "size": 112, "difficulty": difficulty}
    options = Options.model_validate(given)
    clips = len(motion_shapes._clips(options))
    cores = motion_shapes._processes(options)
    if cores == 1:
        pytest.skip("one core")

    def make(processes: int) -> float:
        """Seconds."""
        folder = tmp_path / f"{time.monotonic_ns()}"
        folder.mkdir()
        start = time.perf_counter()
        motion_shapes._generate(folder, options, processes)
        return time.perf_counter() - start

    make(1)  # what is loaded on first use
    pairs = [(make(1), make(cores)) for _ in range(ROUNDS)]
    found = statistics.median(alone / together for alone, together in pairs)
    a_minute = [60 * clips / statistics.median(seconds) for seconds in zip(*pairs)]
    print(f"\n{difficulty}: {cores} processes {found:.2f} times as fast as one; {a_minute[1]:.0f} clips a minute, {a_minute[0]:.0f} by one")
    benchmark.extra_info.update(times_faster=found, clips_a_minute=a_minute[1])
    benchmark.pedantic(make, args=(cores,), rounds=1)
    assert found >= SHARE_OF_CORES * cores
