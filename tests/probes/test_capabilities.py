import subprocess
import sys

import pytest

from benchctl.errors import DeviceMissing
from benchctl.probes import device
from benchctl.probes.device import Capability, Gpus, capabilities
from benchctl.probes.nvml import Driver
from benchctl.record import Gpu


def answers(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> dict[str, Capability]:
    def ask() -> Driver:
        if driver is None:
            raise DeviceMissing("no driver")
        return driver

    monkeypatch.setattr("benchctl.probes.nvml.driver", ask)
    return {c.what: c for c in capabilities()}


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch):
    found = answers(monkeypatch, None)
    for what in ("latency and memory on CUDA", "device memory through NVML"):
        assert found[what] == Capability(what, False, "no driver")
    assert found["memory predicted without a GPU"].available
    assert "uncalibrated" in found["memory predicted without a GPU"].detail
    assert device.gpus() == Gpus()
    assert device.cuda_unavailable() == "no driver"


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch):
    gpu = Gpu(name="Stub 3000", uuid="GPU-1", memory_bytes=48 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: gpu.name)
    found = answers(monkeypatch, Driver("600.1", "13.2", (gpu,)))
    assert found["latency and memory on CUDA"].available
    assert found["device memory through NVML"] == Capability("device memory through NVML", True, "driver 600.1, Stub 3000")
    assert device.gpus() == Gpus((gpu,), "600.1", "13.2")


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = answers(monkeypatch, Driver("600.1", "13.2", ()))
    assert found["latency and memory on CUDA"].detail == "torch cannot use CUDA with this driver"
    assert found["device memory through NVML"] == Capability("device memory through NVML", False, "driver 600.1, which sees no GPU")
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
