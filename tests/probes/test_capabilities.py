import re
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from synthetic_driver import compiled, said

from benchctl.errors import DeviceMissing
from benchctl.probes import device, nvml
from benchctl.probes.device import Capability, Gpus, capabilities
from benchctl.probes.nvml import Driver
from benchctl.record import Gpu

THROUGH_NVML = ("energy", "SM clock", "throttle reasons", "GPU utilisation")


class StubGpu(nvml.OpenGpu):
    """A GPU that answers without a driver; everything it says is synthetic."""

    def __enter__(self) -> Self:
        return self

    def process_bytes(self, *, pid: int | None = None) -> int:
        return 300 * 2**20

    def energy_millijoules(self) -> int:
        return 7_200_000_000

    def sm_clock_megahertz(self) -> int:
        return 1410

    def clock_reasons(self) -> int:
        return 4 | 32

    def utilisation_percent(self) -> int:
        raise DeviceMissing("this GPU does not tell its utilisation")


def answers(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> dict[str, Capability]:
    def ask() -> Driver:
        if driver is None:
            raise DeviceMissing("no driver")
        return driver

    monkeypatch.setattr("benchctl.probes.nvml.driver", ask)
    return {c.what: c for c in capabilities()}


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch):
    found = answers(monkeypatch, None)
    for what in ("latency and memory on CUDA", "device memory of this process", *THROUGH_NVML):
        assert found[what] == Capability(what, False, "no driver")
    assert found["V100 GPU-hours"] == Capability("V100 GPU-hours", False, "no GPU; CPU time is recorded, never normalised")
    assert found["memory predicted without a GPU"].available
    assert "predictions were within" in found["memory predicted without a GPU"].detail
    assert device.gpus() == Gpus()
    assert device.cuda_unavailable() == "no driver"


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch):
    gpu = Gpu(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", memory_bytes=48 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: gpu.name)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: type("Properties", (), {"uuid": "1"}))
    monkeypatch.setattr("torch.ones", lambda *_, device: type("Tensor", (), {"device": device}))
    monkeypatch.setattr(nvml, "OpenGpu", StubGpu)
    found = answers(monkeypatch, Driver("600.1", "13.2", (gpu,)))
    assert found["latency and memory on CUDA"].available
    assert found["device memory of this process"].detail == "300 MiB now"
    said = {what: found[what].detail.removeprefix(f"{gpu.name}: ") for what in THROUGH_NVML}
    assert said == {
        "energy": "a counter, now at 2.0 kWh",
        "SM clock": "1410 MHz now",
        "throttle reasons": "SwPowerCap, SwThermalSlowdown",
        "GPU utilisation": "this GPU does not tell its utilisation",
    }
    assert not found["GPU utilisation"].available
    hours = found["V100 GPU-hours"]
    assert hours == Capability("V100 GPU-hours", True, f"{gpu.name}: 2.5 by moose-v1, 2.5 by peak-dense16-v1")
    assert device.gpus() == Gpus((gpu,), "600.1", "13.2")


def test_a_gpu_that_no_table_knows_and_one_that_a_container_hides(monkeypatch: pytest.MonkeyPatch):
    def unlisted(_: object) -> int:
        raise DeviceMissing("the driver does not list process 7")

    gpus = (Gpu(name="NVIDIA H100 NVL", uuid="GPU-1", memory_bytes=1), Gpu(name="NVIDIA H200", uuid="GPU-2", memory_bytes=1))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 NVL")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: type("Properties", (), {"uuid": "1"}))
    monkeypatch.setattr("torch.ones", lambda *_, device: type("Tensor", (), {"device": device}))
    monkeypatch.setattr(StubGpu, "process_bytes", unlisted)
    monkeypatch.setattr(nvml, "OpenGpu", StubGpu)
    found = answers(monkeypatch, Driver("600.1", "13.2", gpus))
    assert found["device memory of this process"] == Capability(
        "device memory of this process", False, "the driver does not list process 7"
    )
    assert found["V100 GPU-hours"].detail == "NVIDIA H100 NVL: in no table; NVIDIA H200: 7.91 by peak-dense16-v1, 5.07 by lambda-fp16-v1"
    assert found["SM clock"].detail == "NVIDIA H100 NVL: 1410 MHz now; NVIDIA H200: 1410 MHz now"


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = answers(monkeypatch, Driver("600.1", "13.2", ()))
    for what in ("latency and memory on CUDA", "device memory of this process"):
        assert found[what].detail == "torch cannot use CUDA with this driver"
    assert found["energy"] == Capability("energy", False, "driver 600.1 sees no GPU")
    monkeypatch.setattr("torch.version.cuda", None)
    assert "built without CUDA" in str(device.cuda_unavailable())


def test_a_missing_counter_is_said(monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(device, "version", version)
    assert answers(monkeypatch, None)["MACs and FLOPs"] == Capability("MACs and FLOPs", False, "fvcore is not installed")


def test_a_device_slot_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch._C._get_privateuse1_backend_name", lambda: "npu")
    found = answers(monkeypatch, None)["memory predicted without a GPU"]
    assert not found.available
    assert "'npu'" in found.detail


def test_listing_gpus_imports_no_torch():
    code = "import sys; from benchctl.probes.device import gpus; gpus(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctor_with_a_driver_that_only_nvml_can_use(tmp_path: Path):
    """The command as a user types it, through the real bindings; the driver and all that it says are synthetic."""
    code = "import sys; sys.argv = ['benchctl', 'doctor']; from benchctl.cli.app import main; main()"
    environment = {"STUB_UNSUPPORTED": "energy", "STUB_REASONS": "4", "CUDA_VISIBLE_DEVICES": "", "BENCHCTL_CACHE": str(tmp_path / "cache")}
    lines = said(compiled(tmp_path), code, **environment).splitlines()
    rows = {name: " ".join(rest) for name, *rest in (re.split("  +", line) for line in lines)}
    assert rows["GPU"] == "Stub 3000, 48.0 GiB"
    assert rows["energy"] == "unavailable: Stub 3000: this GPU has no energy counter"
    assert rows["SM clock"] == "yes: Stub 3000: 1410 MHz now"
    assert rows["throttle reasons"] == "yes: Stub 3000: SwPowerCap"
    assert rows["GPU utilisation"] == "yes: Stub 3000: 80 % now"
    assert rows["V100 GPU-hours"] == "unavailable: Stub 3000: in no table"
    assert rows["device memory of this process"].startswith("unavailable: ")
    assert "Stub 3000: none stored; 'benchctl calibrate' makes one" in "".join(lines)
