"""How long a call takes: warm-up, fenced repetitions, percentiles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchctl.errors import DeviceMissing


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition, in the order they ran."""

    samples_seconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        """Median, in seconds."""
        return percentile(self.samples_seconds, 50)

    @property
    def p90(self) -> float:
        """90th percentile, in seconds."""
        return percentile(self.samples_seconds, 90)

    @property
    def p99(self) -> float:
        """99th percentile, in seconds. With fewer than 100 repetitions it lies between the two slowest."""
        return percentile(self.samples_seconds, 99)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie, linear between neighbours.

    Definition 7 of Hyndman and Fan (1996), numpy's default: the sorted samples stand at 0, 1/(n-1), ..., 1.

    Raises:
        ValueError: no samples, or `percent` outside 0 to 100.
    """
    if not samples or not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} of {len(samples)} samples is not defined")
    ordered = sorted(samples)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def time_calls(function: Callable[[], object], *, warmup: int, repeats: int, synchronize: Callable[[], object] | None = None) -> Timing:
    """Wall-clock time of each of `repeats` calls, after `warmup` calls that are not counted.

    Args:
        function: what to time; what it raises is passed on.
        warmup: first calls to leave out (allocator growth, kernel selection).
        repeats: calls to time, at least one.
        synchronize: waits for the device, for example `torch.cuda.synchronize`; called before and after every repetition, since
            kernels are asynchronous and an unfenced clock reads launch time. None on the CPU.

    Raises:
        ValueError: a negative `warmup`, or no repetition.
    """
    _check(warmup, repeats)
    fence = synchronize or _no_fence
    for _ in range(warmup):
        function()
    samples = []
    for _ in range(repeats):
        fence()
        start = time.perf_counter_ns()
        function()
        fence()
        samples.append((time.perf_counter_ns() - start) / 1e9)
    return Timing(tuple(samples))


def time_cuda_calls(function: Callable[[], object], *, warmup: int, repeats: int) -> Timing:
    """Device time of each of `repeats` calls on the current CUDA stream, between two CUDA events; resolution about 0.5 µs.

    Unlike `time_calls` it leaves out the launch overhead that a busy stream hides.

    Raises:
        DeviceMissing: no CUDA device.
        ValueError: a negative `warmup`, or no repetition.
    """
    import torch

    _check(warmup, repeats)
    if not torch.cuda.is_available():
        raise DeviceMissing("device time needs a CUDA device")
    for _ in range(warmup):
        function()
    torch.cuda.synchronize()
    events = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return Timing(tuple(start.elapsed_time(end) / 1e3 for start, end in events))


def _check(warmup: int, repeats: int) -> None:
    if warmup < 0 or repeats < 1:
        raise ValueError(f"warmup {warmup} must be at least 0 and repeats {repeats} at least 1")


def _no_fence() -> None:
    """The CPU is done when the call returns."""
