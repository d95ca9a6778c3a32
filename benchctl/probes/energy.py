"""What a GPU did while a block ran: energy, clock, why the clock was lowered, utilisation, and the memory of this process.

    energy       difference of the driver's counter between two synchronizations; of the whole GPU, whoever used it.
    utilisation  mean over the samples of the part of the time in which any kernel was executing; says nothing of how full the GPU was.
    sm_clock     mean over the samples.
    throttled    share of the samples in which power, heat or another hardware limit lowered the clock.
    memory       largest of the samples: a peak between two of them is not seen.

Sampled at 10 Hz through NVML, in one session. Each is a value, or the reason why there is none; a source that fails on the way has no
value for the whole block, since what it said before is not the whole.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from benchctl.errors import DeviceMissing
from benchctl.probes import nvml
from benchctl.probes.sampler import INTERVAL_SECONDS, Sampler, Series
from benchctl.record import Measurement

#: longest period over which a driver averages its utilisation: in a shorter block it would tell what was before
UTILISATION_PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class Reading:
    """A number, or the reason why there is none."""

    value: float | int | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("either a value or a reason")


@dataclass(frozen=True)
class Activity:
    """What one GPU did during a block."""

    seconds: float
    energy_joules: Reading
    utilisation: Reading
    sm_clock_hertz: Reading
    throttled: Reading
    peak_memory_bytes: Reading
    #: share of the samples by the reason for which the clock was not the highest, by pynvml's names; idling and set limits are among
    #: them. Empty also where it is not known.
    clock_reasons: Mapping[str, float] = field(default_factory=dict)

    def measurements(self) -> list[Measurement]:
        """One of each, with a value or a reason."""
        readings = (
            ("energy_joules", "", self.energy_joules),
            ("gpu_utilisation", "", self.utilisation),
            ("sm_clock_hertz", "", self.sm_clock_hertz),
            ("throttled_fraction", "", self.throttled),
            ("peak_memory_bytes", "device", self.peak_memory_bytes),
        )
        return [Measurement(metric=metric, value=r.value, kind=kind, device="cuda", reason=r.reason) for metric, kind, r in readings]

    def notes(self) -> dict[str, Any]:
        """Shares of the reasons for a lowered clock, where there were any."""
        return {"clock_reasons": dict(self.clock_reasons)} if self.clock_reasons else {}


class GpuWatch:
    """Watches one GPU while its block runs; `activity` tells afterwards what it did.

    Never fails by itself: what cannot be had is a reason. What `synchronize` raises is passed on. Where the block ends by an error the
    device is not waited for, and the energy is not known.
    """

    def __init__(
        self, uuid: str, synchronize: Callable[[], object], *, pid: int | None = None, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        """Say what to watch.

        Args:
            uuid: of the GPU, as CUDA gives it, with or without the prefix `GPU-`.
            synchronize: waits for the device, for example `torch.cuda.synchronize`. Called at the start, so that earlier work does not
                count and this process has a CUDA context for the driver to list, and at the end, so that all of the block counts.
            pid: the process whose memory is watched; default: this one.
            interval_seconds: between two samples.
        """
        self._gpu = nvml.OpenGpu(uuid)
        self._synchronize = synchronize
        self._memory = Series(lambda: self._gpu.process_bytes(pid=pid))
        self._clock = Series(self._gpu.sm_clock_megahertz)
        self._reasons = Series(self._gpu.clock_reasons)
        self._utilisation = Series(self._gpu.utilisation_percent)
        self._sampler = Sampler((self._memory, self._clock, self._reasons, self._utilisation), interval_seconds)
        self._open = ExitStack()
        self._ended: Activity | None = None

    def __enter__(self) -> Self:
        self._synchronize()
        self._open.enter_context(self._gpu)
        self._began_at = self._counter()
        self._began = time.monotonic()
        self._open.enter_context(self._sampler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._open:
            if error is None:
                self._synchronize()
            seconds = time.monotonic() - self._began
            energy = _used(self._began_at, self._counter(), seconds) if error is None else Reading(None, "the block ended by an error")
        self._ended = Activity(
            seconds=seconds,
            energy_joules=energy,
            utilisation=self._mean_utilisation(seconds),
            sm_clock_hertz=_reading(self._clock, self._clock.mean, 1e6),
            throttled=_reading(self._reasons, self._reasons.share(nvml.slows)),
            peak_memory_bytes=_reading(self._memory, self._memory.largest),
            clock_reasons=_shares(self._reasons.times_seen),
        )

    @property
    def activity(self) -> Activity:
        """What the GPU did during the block.

        Raises:
            ValueError: the block has not ended.
        """
        if self._ended is None:
            raise ValueError("what a GPU did is known when the block has ended")
        return self._ended

    def _counter(self) -> Reading:
        try:
            return Reading(self._gpu.energy_millijoules())
        except DeviceMissing as missing:
            return Reading(None, str(missing))

    def _mean_utilisation(self, seconds: float) -> Reading:
        found = _reading(self._utilisation, self._utilisation.mean, 0.01)
        if found.value is None or seconds >= UTILISATION_PERIOD_SECONDS:
            return found
        return Reading(None, f"{seconds:.2g} s are shorter than the {UTILISATION_PERIOD_SECONDS:g} s over which the driver averages")


def cuda_watch(device: int = 0) -> GpuWatch:
    """A watch of CUDA device number `device`, which must be there."""
    import torch

    return GpuWatch(str(torch.cuda.get_device_properties(device).uuid), lambda: torch.cuda.synchronize(device))


def _used(before: Reading, after: Reading, seconds: float) -> Reading:
    """Joules between two states of the counter, which is in millijoules."""
    if before.value is None or after.value is None:
        return Reading(None, before.reason or after.reason)
    if after.value < before.value:
        return Reading(None, "the energy counter went back, as when the driver is loaded anew")
    if after.value == before.value:
        return Reading(None, f"the energy counter did not move in {seconds:.2g} s")
    return Reading((after.value - before.value) / 1e3)


def _reading(series: Series, value: float | int | None, scale: float | int = 1) -> Reading:
    return Reading(None, series.reason or "never sampled") if value is None else Reading(value * scale)


def _shares(times_seen: Mapping[int, int]) -> dict[str, float]:
    """Share of the samples in which each reason was given, by its name."""
    named: Counter[str] = Counter()
    for reasons, times in times_seen.items():
        for name in nvml.reason_names(reasons):
            named[name] += times
    return {name: times / sum(times_seen.values()) for name, times in sorted(named.items())}
