"""What the NVIDIA driver says, through NVML. Devices are matched by UUID: NVML and CUDA number them differently.

Every question is answered with a value or with the reason why there is none; a machine without a driver is an ordinary answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from benchctl.errors import DeviceMissing
from benchctl.record import Gpu

_Answer = TypeVar("_Answer")

#: reasons of a clock that is not the highest, as pynvml names them behind `nvmlClocksEventReason`
_SLOWING = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
_OTHER = ("GpuIdle", "ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting")


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


class OpenGpu:
    """One GPU, in an NVML session that stays open while its block runs: initialising NVML anew for every question costs more than it.

    Opening and closing never fail. Every question raises `DeviceMissing` with the reason where there is no driver or no such GPU, where
    the GPU lacks what is asked for, and where the driver does not answer.
    """

    def __init__(self, uuid: str) -> None:
        """Name it.

        Args:
            uuid: as CUDA gives it, with or without the prefix `GPU-`.
        """
        self._uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        self._stack = ExitStack()
        self._nvml: Any = None
        self._handle: Any = None
        self._missing = DeviceMissing("no session with the driver is open")

    def __enter__(self) -> Self:
        try:
            self._nvml = self._stack.enter_context(_session())
            self._handle = self._ask(lambda nvml: nvml.nvmlDeviceGetHandleByUUID(self._uuid), f"the driver lists no GPU {self._uuid}")
        except DeviceMissing as missing:
            self._nvml, self._missing = None, missing
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # a driver that died in the block cannot shut down; the questions that it did not answer have said so
        with suppress(DeviceMissing):
            self._stack.close()

    def process_bytes(self, *, pid: int | None = None) -> int:
        """Device memory that one process holds, CUDA context included; default: this process.

        A process that the driver does not list, as in a container that has process numbers of its own, is a reason and not 0.
        """
        pid = os.getpid() if pid is None else pid
        for process in self._ask(lambda nvml: nvml.nvmlDeviceGetComputeRunningProcesses(self._handle), "this GPU lists no processes"):
            if process.pid == pid:
                if process.usedGpuMemory is None:
                    raise DeviceMissing(f"the driver lists process {pid} without its memory")
                return int(process.usedGpuMemory)
        raise DeviceMissing(f"the driver does not list process {pid}, as in a container with process numbers of its own")

    def energy_millijoules(self) -> int:
        """Energy that the whole GPU has used since the driver was loaded."""
        return int(self._ask(lambda nvml: nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle), "this GPU has no energy counter"))

    def sm_clock_megahertz(self) -> int:
        """Clock of the streaming multiprocessors, now."""
        return int(
            self._ask(lambda nvml: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM), "this GPU does not tell its clock")
        )

    def utilisation_percent(self) -> int:
        """Part of the driver's last sampling period, 1/6 s to 1 s, in which a kernel of any process was executing."""
        return int(self._ask(lambda nvml: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu, "this GPU does not tell its utilisation"))

    def clock_reasons(self) -> int:
        """Why the clock is not the highest, now; `reason_names` reads it."""

        def ask(nvml: Any) -> int:
            try:
                return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
            except nvml.NVMLError_FunctionNotFound:
                # the name that drivers before 535 know it by
                return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

        return self._ask(ask, "this GPU does not tell why its clock is lowered")

    def _ask(self, question: Callable[[Any], _Answer], absent: str) -> _Answer:
        """The answer to `question`, or `absent` where the GPU or its driver has none."""
        if self._nvml is None:
            raise self._missing
        nvml = self._nvml
        try:
            return question(nvml)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotFound, nvml.NVMLLibraryMismatchError):
            raise DeviceMissing(absent) from None
        except nvml.NVMLError as error:
            raise DeviceMissing(f"the driver does not answer: {error}") from error


def reason_names(reasons: int) -> tuple[str, ...]:
    """Names of the bits of `OpenGpu.clock_reasons`, as pynvml has them; a bit without a name is itself, in hexadecimal."""
    bits = {_bit(name): name for name in (*_SLOWING, *_OTHER)}
    found = (1 << place for place in range(reasons.bit_length()))
    return tuple(bits.get(bit, hex(bit)) for bit in found if reasons & bit)


def slows(reasons: int) -> bool:
    """Whether one of `reasons` slows the GPU down under load: power, heat or another hardware limit."""
    return any(reasons & _bit(name) for name in _SLOWING)


def _bit(name: str) -> int:
    import pynvml

    return int(getattr(pynvml, f"nvmlClocksEventReason{name}"))


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
