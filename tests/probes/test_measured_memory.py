import subprocess
import sys

import pytest
import torch
from torch import nn

from benchctl.errors import DeviceMissing
from benchctl.probes import memory
from benchctl.probes.memory import Peak, cuda_memory_cap, cuda_peaks, is_out_of_memory, live_bytes, resident_bytes

MIB = 2**20


def test_live_bytes_worked_example():
    def work() -> None:
        a = torch.empty(1000)
        b = torch.empty(2000)
        del a
        c = torch.empty(500)
        del b, c

    assert live_bytes(work) == Peak("allocated", "cpu", 12000)


def test_what_is_held_counts_once_and_from_the_start():
    model = nn.Linear(100, 10, bias=False)
    model.register_buffer("scale", torch.ones(10))
    model.weight.grad = torch.ones(10, 100)
    view = model.weight.detach()[:5]
    peak = live_bytes(lambda: torch.empty(7), held=(model, view))
    assert peak.value_bytes == 4000 + 4000 + 40 + 28


def test_nothing_is_written_to_the_terminal():
    code = "import torch; from benchctl.probes.memory import live_bytes; assert live_bytes(lambda: torch.empty(8)).value_bytes == 32"
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")


def test_an_error_in_the_function_is_passed_on():
    def work() -> None:
        raise KeyError("mine")

    for probe in (live_bytes, resident_bytes):
        with pytest.raises(KeyError, match="mine"):
            probe(work)


def test_resident_bytes_sees_pages_that_are_written():
    def work() -> None:
        torch.ones(64 * MIB, dtype=torch.uint8).add_(1)

    # 200 MB below one last block: the C library keeps them after they are freed, and would give them to `work`
    kept = [bytearray(b"1" * 100_000) for _ in range(2001)]
    last = kept.pop()
    del kept
    grown = resident_bytes(work).value_bytes
    assert grown is not None
    assert 60 * MIB < grown < 100 * MIB
    assert len(last) == 100_000
    untouched = resident_bytes(lambda: torch.empty(64 * MIB, dtype=torch.uint8)).value_bytes
    assert untouched is not None
    assert untouched < 16 * MIB


def test_a_peak_has_a_value_or_a_reason():
    for value, reason in ((None, None), (1, "why")):
        with pytest.raises(ValueError, match="either"):
            Peak("rss", "cpu", value, reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_driver_every_cuda_figure_is_absent_with_the_reason():
    called: list[int] = []
    peaks = cuda_peaks(lambda: called.append(1))
    assert not called
    for peak, kind in ((peaks.allocated, "allocated"), (peaks.reserved, "reserved"), (peaks.device, "device")):
        assert (peak.kind, peak.device, peak.value_bytes) == (kind, "cuda", None)
        assert peak.reason
    with pytest.raises(DeviceMissing, match="memory cannot be capped"), cuda_memory_cap(2**30):
        pass
    with cuda_memory_cap(None):
        pass


class FakeCuda:
    """What the measurement asks of torch.cuda, on a GPU of 100 bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[object] = []
        properties = type("Properties", (), {"total_memory": 100, "uuid": "abc"})
        monkeypatch.setattr(memory, "cuda_unavailable", lambda: None)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
        for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
            monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, name=name: self.calls.append(name))
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 40)
        monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda _: 60)
        monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda fraction, _: self.calls.append(fraction))


def test_cuda_peaks_reset_before_and_wait_after(monkeypatch: pytest.MonkeyPatch):
    fake = FakeCuda(monkeypatch)
    monkeypatch.setattr("benchctl.probes.nvml.OpenGpu.process_bytes", lambda _: 80)
    peaks = cuda_peaks(lambda: fake.calls.append("run"))
    assert fake.calls == ["synchronize", "empty_cache", "reset_peak_memory_stats", "run", "synchronize"]
    assert (peaks.allocated.value_bytes, peaks.reserved.value_bytes, peaks.device.value_bytes) == (40, 60, 80)


def test_in_a_container_only_the_driver_s_figure_is_absent(monkeypatch: pytest.MonkeyPatch):
    FakeCuda(monkeypatch)

    def unlisted(_: object) -> int:
        raise DeviceMissing("the driver does not list process 7")

    monkeypatch.setattr("benchctl.probes.nvml.OpenGpu.process_bytes", unlisted)
    peaks = cuda_peaks(lambda: None)
    assert peaks.allocated.value_bytes == 40
    assert peaks.device == Peak("device", "cuda", None, "the driver does not list process 7")


def test_a_cap_is_a_fraction_of_the_device_and_is_lifted_again(monkeypatch: pytest.MonkeyPatch):
    fake = FakeCuda(monkeypatch)
    with pytest.raises(RuntimeError), cuda_memory_cap(25):
        raise RuntimeError
    assert fake.calls == [0.25, 1.0]
    with pytest.raises(DeviceMissing, match="fewer than the cap"), cuda_memory_cap(101):
        pass


def caused(by: Exception) -> Exception:
    try:
        raise ValueError("step failed") from by
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (MemoryError(), True),
        (caused(MemoryError()), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, ran_out: bool):
    assert is_out_of_memory(error) == ran_out


def test_a_real_allocation_failure_is_recognized():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
