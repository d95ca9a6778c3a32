"""Two ways to compute one thing, run in turns in the same process on one thread, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchctl.probes.memory import live_bytes

ROUNDS = 3


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's CPU kernels on a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compare(benchmark: BenchmarkFixture, ours: Callable[[], None], theirs: Callable[[], None], *, faster: float, share: float) -> None:
    """Assert that `ours` is at least `faster` times as fast as `theirs`, with at most `share` of its peak memory, and print both."""
    with one_thread():
        ours()
        pairs = [(_seconds(theirs), statistics.median(_seconds(ours) for _ in range(10))) for _ in range(ROUNDS)]
        found = statistics.median(slow / fast for slow, fast in pairs)
        taken, needed = (live_bytes(run).value_bytes for run in (ours, theirs))
        assert taken is not None
        assert needed is not None
        benchmark.extra_info.update(times_faster=found, share_of_memory=taken / needed)
        print(f"\n{found:.0f} times faster; {taken / 2**20:.0f} MiB against {needed / 2**20:.0f} MiB, {taken / needed:.1%}")
        benchmark(ours)
    assert found >= faster
    assert taken <= share * needed


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
