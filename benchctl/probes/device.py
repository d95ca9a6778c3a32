"""What this machine can measure, and for what it cannot, why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchctl.errors import DeviceMissing, TraceFailed
from benchctl.probes import nvml
from benchctl.record import Gpu


@dataclass(frozen=True)
class Capability:
    """One thing that can or cannot be measured here."""

    what: str
    available: bool
    #: a version or a device where it is available, the reason where it is not
    detail: str


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine, and what drives them. None and empty where there is no driver."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    #: newest CUDA that the driver supports
    cuda: str | None = None


def gpus() -> Gpus:
    """What the driver lists. Imports no torch."""
    try:
        found = nvml.driver()
    except DeviceMissing:
        return Gpus()
    return Gpus(found.gpus, found.version, found.cuda)


def cuda_unavailable() -> str | None:
    """Why nothing can be measured on CUDA here, or None where it can. Imports torch only where there is a driver."""
    try:
        nvml.driver()
    except DeviceMissing as missing:
        return str(missing)
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return None if torch.cuda.is_available() else "torch cannot use CUDA with this driver"


def capabilities() -> list[Capability]:
    """Every kind of measurement of this package, in the order a reader looks for them."""
    return [_cpu(), _cuda(), _nvml(), _rss(), _operations(), _prediction()]


def _cpu() -> Capability:
    import torch

    return Capability("latency and memory on the CPU", True, f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def _cuda() -> Capability:
    reason = cuda_unavailable()
    if reason is not None:
        return Capability("latency and memory on CUDA", False, reason)
    import torch

    return Capability("latency and memory on CUDA", True, f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")


def _nvml() -> Capability:
    try:
        found = nvml.driver()
    except DeviceMissing as missing:
        return Capability("device memory through NVML", False, str(missing))
    names = ", ".join(gpu.name for gpu in found.gpus)
    return Capability("device memory through NVML", bool(found.gpus), f"driver {found.version}, {names or 'which sees no GPU'}")


def _rss() -> Capability:
    from benchctl.probes.memory import resident_bytes

    peak = resident_bytes(lambda: None)
    return Capability("resident set", peak.reason is None, peak.reason or "the kernel's high-water mark")


def _operations() -> Capability:
    try:
        return Capability("MACs and FLOPs", True, f"fvcore {version('fvcore')}")
    except PackageNotFoundError:
        return Capability("MACs and FLOPs", False, "fvcore is not installed")


def _prediction() -> Capability:
    from benchctl.probes.prediction import CALIBRATION, fake_device

    try:
        fake_device.register()
    except TraceFailed as error:
        return Capability("memory predicted without a GPU", False, str(error))
    return Capability("memory predicted without a GPU", True, CALIBRATION)
