"""What this machine can measure, and for what it cannot, why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchctl.errors import DeviceMissing, TraceFailed
from benchctl.gpu_rates import TABLES, Factor, factor
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


def cuda_name() -> str:
    """What CUDA calls the GPU that commands use; there must be one."""
    import torch

    return torch.cuda.get_device_name()


def capabilities() -> list[Capability]:
    """Every kind of measurement of this package, in the order a reader looks for them."""
    return [
        _cpu(),
        _cuda(),
        _process_memory(),
        _nvml("energy", lambda gpu: f"a counter, now at {gpu.energy_millijoules() / 3.6e9:,.1f} kWh"),
        _nvml("SM clock", lambda gpu: f"{gpu.sm_clock_megahertz()} MHz now"),
        _nvml("throttle reasons", lambda gpu: ", ".join(nvml.reason_names(gpu.clock_reasons())) or "none now"),
        _nvml("GPU utilisation", lambda gpu: f"{gpu.utilisation_percent()} % now"),
        _gpu_hours(),
        _rss(),
        _operations(),
        _prediction(),
    ]


def _cpu() -> Capability:
    import torch

    return Capability("latency and memory on the CPU", True, f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def _cuda() -> Capability:
    reason = cuda_unavailable()
    if reason is not None:
        return Capability("latency and memory on CUDA", False, reason)
    import torch

    return Capability("latency and memory on CUDA", True, f"{cuda_name()}, CUDA {torch.version.cuda}")


def _process_memory() -> Capability:
    """Asked while this process holds some: one without a CUDA context is not listed anywhere."""
    what = "device memory of this process"
    reason = cuda_unavailable()
    if reason is not None:
        return Capability(what, False, reason)
    import torch

    try:
        held = torch.ones(1, device="cuda")
        with nvml.OpenGpu(str(torch.cuda.get_device_properties(held.device).uuid)) as gpu:
            return Capability(what, True, f"{gpu.process_bytes() / 2**20:,.0f} MiB now")
    except (DeviceMissing, RuntimeError) as missing:
        return Capability(what, False, " ".join(str(missing).split()))


def _nvml(what: str, ask: Callable[[nvml.OpenGpu], str]) -> Capability:
    """What the driver tells of each GPU; available where it tells it of one."""
    try:
        found = nvml.driver()
    except DeviceMissing as missing:
        return Capability(what, False, str(missing))
    if not found.gpus:
        return Capability(what, False, f"driver {found.version} sees no GPU")
    told, lacking = {}, {}
    for gpu in found.gpus:
        with nvml.OpenGpu(gpu.uuid) as opened:
            try:
                told[gpu.uuid] = ask(opened)
            except DeviceMissing as missing:
                lacking[gpu.uuid] = str(missing)
    said = told | lacking
    return Capability(what, bool(told), "; ".join(f"{gpu.name}: {said[gpu.uuid]}" for gpu in found.gpus))


def _gpu_hours() -> Capability:
    what = "V100 GPU-hours"
    names = sorted({gpu.name for gpu in gpus().gpus})
    if not names:
        return Capability(what, False, "no GPU; CPU time is recorded, never normalised")
    known = {name: [found for table in TABLES if isinstance(found := factor(name, table), Factor)] for name in names}
    said = (f"{name}: {', '.join(f'{f.value:g} by {f.table}' for f in known[name]) or 'in no table'}" for name in names)
    return Capability(what, any(known.values()), "; ".join(said))


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
