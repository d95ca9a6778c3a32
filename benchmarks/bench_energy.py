"""What watching a GPU at 10 Hz costs the work beside it: CPU time with over CPU time without, in turns in the same process.

The work is on the CPU, on one thread, so that nothing waits for a GPU. Where there is no driver, the bindings load the synthetic one of
the tests: then it is the cost of our thread and of the bindings, not of a driver's answers. CPU time is of all threads, the watch's among
them; wall-clock time is printed too, and on a busy machine is mostly that of others. At 10 Hz the difference is smaller than what
two times of the same work differ by, so the claim is judged at 20 times the rate, where the cost is 20 times as large, and printed at both.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import one_thread

from benchctl.errors import DeviceMissing
from benchctl.probes import nvml
from benchctl.probes.energy import GpuWatch
from benchctl.probes.sampler import INTERVAL_SECONDS

STUB = Path(__file__).parent.parent / "tests" / "probes" / "nvml_stub.c"
#: what a watched training may be slower by
LIMIT = 0.005
PAIRS = 6
STEPS = 60
FASTER = 20


def watched_gpu(folder: Path) -> str:
    """UUID of a GPU to watch, and that of the synthetic driver where there is none."""
    try:
        return nvml.driver().gpus[0].uuid
    except DeviceMissing:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("neither a driver nor a C compiler")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, STUB], check=True)
    os.environ["STUB_PID"] = str(os.getpid())
    # once loaded, the bindings find it by its name
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return nvml.driver().gpus[0].uuid


def work() -> None:
    """About a second of training steps, in kernels of about a millisecond."""
    layers = [torch.randn(384, 384, requires_grad=True) for _ in range(6)]
    x = torch.randn(256, 384)
    for _ in range(STEPS):
        y = x
        for layer in layers:
            y = torch.tanh(y @ layer)
        y.square().mean().backward()


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and CPU time, the latter over all threads of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - cpu


def overhead(uuid: str, interval_seconds: float) -> tuple[float, float]:
    """Wall-clock and CPU time of watched over unwatched work, less one: medians of pairs that start with either in turns."""

    def watched() -> None:
        with GpuWatch(uuid, lambda: None, interval_seconds=interval_seconds):
            work()

    found = []
    for pair in range(PAIRS):
        order = (watched, work) if pair % 2 else (work, watched)
        first, second = seconds(order[0]), seconds(order[1])
        ours, alone = (first, second) if order[0] is watched else (second, first)
        found.append((ours[0] / alone[0] - 1, ours[1] / alone[1] - 1))
    wall, cpu = zip(*found)
    return statistics.median(wall), statistics.median(cpu)


def test_overhead(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    uuid = watched_gpu(tmp_path)
    with one_thread():
        work()
        wall, cpu = overhead(uuid, INTERVAL_SECONDS)
        fast_wall, fast_cpu = overhead(uuid, INTERVAL_SECONDS / FASTER)
        found = fast_cpu / FASTER
        benchmark.extra_info.update(cpu_overhead=found, cpu_overhead_direct=cpu, wall_overhead_direct=wall)
        print(f"\nat 10 Hz: CPU time x {1 + cpu:.4f}, wall clock x {1 + wall:.4f}")
        print(
            f"at {10 * FASTER} Hz: CPU time x {1 + fast_cpu:.4f}, wall clock x {1 + fast_wall:.4f}, which makes x {1 + found:.4f} at 10 Hz"
        )
        benchmark.pedantic(work, rounds=2)
    assert found < LIMIT
