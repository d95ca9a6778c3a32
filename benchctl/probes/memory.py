"""Memory that was really used: live tensor bytes on the CPU, resident set, and the three figures of a CUDA device.

Each figure is a `Peak` of one kind, and the kinds are not comparable with one another:

    allocated  bytes of live tensors. CPU: summed from every allocation and release that torch's allocator reports to its profiler;
               exact, and without what kernels take outside that allocator. CUDA: `torch.cuda.max_memory_allocated`.
    reserved   CUDA: segments that torch's caching allocator held, `torch.cuda.max_memory_reserved`.
    device     CUDA: what the driver says this process holds, context included, sampled at 10 Hz through NVML.
    rss        CPU: growth of the process's resident set over its level at the start, by the kernel's own high-water mark.

`device` is a lower bound: a peak between two samples is not seen. What cannot be measured here is a `Peak` without a
value and with the reason.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchctl.errors import DeviceMissing
from benchctl.probes.device import cuda_unavailable
from benchctl.probes.nvml import OpenGpu
from benchctl.probes.sampler import Sampler, Series


@dataclass(frozen=True)
class Peak:
    """The largest value of one kind of memory during a call, or the reason why there is none."""

    kind: Literal["allocated", "reserved", "device", "rss"]
    device: Literal["cpu", "cuda"]
    value_bytes: int | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value_bytes is None) == (self.reason is None):
            raise ValueError(f"{self.kind}: either a value or a reason")


def live_bytes(function: Callable[[], object], *, held: Iterable[torch.Tensor | nn.Module] = ()) -> Peak:
    """Peak of the live CPU tensor bytes while `function` runs, exact to the byte.

    The profiler slows `function` down and uses memory of its own, so take time and resident set in other calls.

    Args:
        function: what to measure; what it raises is passed on.
        held: tensors and modules that are alive before and count from the start (modules with their buffers and gradients). They
            count to the end: a release of what was allocated before is not reported. The rest of what was alive does not count.
    """
    live = peak = sum(_cpu_storages(held).values())
    # The profiler's own log lines go to stderr, among them an error where there is no GPU. It reads this when it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as session:
        function()
    if session.profiler is None or session.profiler.kineto_results is None:
        return Peak("allocated", "cpu", None, "torch's profiler recorded nothing")
    changes = [
        (event.start_ns(), event.nbytes())
        for event in session.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == torch._C._autograd.DeviceType.CPU
    ]
    for _, change in sorted(changes, key=lambda change: change[0]):
        live += change
        peak = max(peak, live)
    return Peak("allocated", "cpu", peak)


def resident_bytes(function: Callable[[], object]) -> Peak:
    """Largest growth of this process's resident set while `function` runs, over its level before.

    From the kernel's high-water mark (VmHWM), which is set back first: no peak is too short to be seen.
    """
    _give_back_free_pages()
    try:
        # 5: set the high-water mark to the present level (proc(5))
        _CLEAR_REFS.write_text("5")
        before = _high_water_bytes()
    except (OSError, LookupError) as problem:
        function()
        return Peak("rss", "cpu", None, f"this system does not let its high-water mark be read and set back: {problem}")
    function()
    return Peak("rss", "cpu", _high_water_bytes() - before)


@dataclass(frozen=True)
class CudaPeaks:
    """The three kinds of one call on a CUDA device."""

    allocated: Peak
    reserved: Peak
    device: Peak


def cuda_peaks(function: Callable[[], object], *, device: int = 0) -> CudaPeaks:
    """Peaks of CUDA device number `device` while `function` runs. Where there is none, `function` is not called.

    What was allocated before counts, as it takes memory too. What `function` raises is passed on, out of memory included.
    """
    reason = cuda_unavailable()
    if reason is not None:
        return CudaPeaks(*(Peak(kind, "cuda", None, reason) for kind in ("allocated", "reserved", "device")))
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    torch.cuda.synchronize(device)
    # Segments left from an earlier call would count as held by this one.
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    with OpenGpu(uuid) as gpu, Sampler([held := Series(gpu.process_bytes)]):
        function()
        torch.cuda.synchronize(device)
    return CudaPeaks(
        Peak("allocated", "cuda", torch.cuda.max_memory_allocated(device)),
        Peak("reserved", "cuda", torch.cuda.max_memory_reserved(device)),
        Peak("device", "cuda", held.largest, held.reason),
    )


@contextmanager
def cuda_memory_cap(cap_bytes: int | None, *, device: int = 0) -> Iterator[None]:
    """Let torch reserve at most `cap_bytes` on a CUDA device in this block; a larger device then behaves like one of that size.

    Raises:
        DeviceMissing: no CUDA device, or one smaller than the cap.
    """
    if cap_bytes is None:
        yield
        return
    reason = cuda_unavailable()
    if reason is not None:
        raise DeviceMissing(f"memory cannot be capped: {reason}")
    total = torch.cuda.get_device_properties(device).total_memory
    if cap_bytes > total:
        raise DeviceMissing(f"the GPU has {total} bytes, fewer than the cap of {cap_bytes}", fix="lower memory_cap_gib")
    torch.cuda.set_per_process_memory_fraction(cap_bytes / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


_OUT_OF_MEMORY_TEXTS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that host or device memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(seen, RuntimeError) and any(text in str(seen) for text in _OUT_OF_MEMORY_TEXTS):
            return True
        seen = seen.__cause__
    return False


_CLEAR_REFS = Path("/proc/self/clear_refs")


def _give_back_free_pages() -> None:
    """Freed pages that the C library keeps are resident already: a call that fills them again would seem to need nothing."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _high_water_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no VmHWM in /proc/self/status")


def _cpu_storages(items: Iterable[torch.Tensor | nn.Module]) -> dict[int, int]:
    """Sizes of the CPU storages behind `items`, each storage once."""
    sizes: dict[int, int] = {}
    for item in items:
        tensors = [item] if isinstance(item, torch.Tensor) else [*item.parameters(), *item.buffers()]
        for tensor in (*tensors, *(t.grad for t in tensors if t.is_leaf and t.grad is not None)):
            storage = tensor.untyped_storage()
            if tensor.device.type == "cpu":
                sizes[storage.data_ptr()] = storage.nbytes()
    return sizes
