"""What the NVIDIA driver says, through NVML. Devices are matched by UUID: NVML and CUDA number them differently.

Every question is answered with a value or with the reason why there is none; a machine without a driver is an ordinary answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchctl.errors import DeviceMissing
from benchctl.record import Gpu


@dataclass(frozen=True)
class Driver:
    """The driver and its GPUs."""

    version: str
    #: newest CUDA that the driver supports
    cuda: str
    gpus: tuple[Gpu, ...]


def driver() -> Driver:
    """The installed driver.

    Raises:
        DeviceMissing: no driver, or one that does not answer.
    """
    with _session() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        gpus = tuple(
            Gpu(
                name=_text(nvml.nvmlDeviceGetName(handle)),
                uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for handle in handles
        )
        cuda = nvml.nvmlSystemGetCudaDriverVersion()
        return Driver(_text(nvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}", gpus)


def process_bytes(uuid: str, *, pid: int | None = None) -> int:
    """Device memory that one process holds, CUDA context included.

    Args:
        uuid: of the GPU, as CUDA gives it, with or without the prefix `GPU-`.
        pid: of the process; default: this one.

    Raises:
        DeviceMissing: no driver; no such GPU; or the driver does not list the process or its memory, as in a container that has
            process numbers of its own.
    """
    pid = os.getpid() if pid is None else pid
    uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    with _session() as nvml:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == pid:
                if process.usedGpuMemory is None:
                    raise DeviceMissing(f"the driver lists process {pid} without its memory")
                return int(process.usedGpuMemory)
    raise DeviceMissing(f"the driver does not list process {pid}, as in a container with process numbers of its own")


@contextmanager
def _session() -> Iterator[Any]:
    """NVML between its initialisation and its shutdown, its errors as `DeviceMissing`."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError_LibraryNotFound:
        raise DeviceMissing("no driver") from None
    except pynvml.NVMLError as error:
        raise DeviceMissing(f"the driver does not answer: {error}") from error


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
