"""Watching a GPU, through the real bindings against a driver of our own making: every number here is synthetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_driver import compiled, said

from benchctl.probes.energy import Activity, GpuWatch, Reading

#: 3 samples: at the start, one that the block waits for, and at the end
PROGRAM = """
import ctypes, json, threading
from benchctl.probes import energy

energy.UTILISATION_PERIOD_SECONDS = {period}
calls, seen = [], threading.Event()
watch = energy.GpuWatch("1234", lambda: calls.append("synchronize"), pid=42, interval_seconds=0.02)
real = watch._utilisation.sample
def counted():
    real()
    calls.append("sample")
    if calls.count("sample") == 2:
        seen.set()
        watch._sampler._interval = 1e6
watch._utilisation.sample = counted
with watch:
    calls.append("block")
    assert seen.wait(60)
{also}
found = watch.activity
print(json.dumps({{
    "calls": [c for c in calls if c != "sample"],
    "samples": calls.count("sample"),
    "measurements": {{m.metric: m.value if m.reason is None else m.reason for m in found.measurements()}},
    "notes": found.notes(),
    "also": {say},
}}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("driver"))


def watched(library: Path, *, period: float = 0.0, also: str = "", say: str = "None", **environment: str) -> dict[str, Any]:
    return json.loads(said(library, PROGRAM.format(period=period, also=also, say=say), **environment))


def test_a_worked_example(library: Path):
    found = watched(library, STUB_ENERGY="1000500,1003250", STUB_CLOCKS="1410,1200,1410", STUB_REASONS="1,0x24,4")
    assert found["calls"] == ["synchronize", "block", "synchronize"]
    assert found["samples"] == 3
    assert found["measurements"] == {
        "energy_joules": 2.75,
        "gpu_utilisation": pytest.approx(0.8),
        "sm_clock_hertz": pytest.approx(1340e6),
        "throttled_fraction": pytest.approx(2 / 3),
        "peak_memory_bytes": 5 * 2**30 + 3,
    }
    third = pytest.approx(1 / 3)
    assert found["notes"] == {"clock_reasons": {"GpuIdle": third, "SwPowerCap": pytest.approx(2 / 3), "SwThermalSlowdown": third}}


def test_a_clock_that_nothing_lowers_is_a_measured_zero_and_no_note(library: Path):
    found = watched(library)
    assert found["measurements"]["throttled_fraction"] == 0.0
    assert found["notes"] == {}


def test_one_session_for_all_samples(library: Path):
    again = "stub = ctypes.CDLL('libnvidia-ml.so.1')"
    assert watched(library, also=again, say="stub.stub_initialised()")["also"] == 1


@pytest.mark.parametrize(
    ("counter", "reason"),
    [
        ("5000,4000", "the energy counter went back, as when the driver is loaded anew"),
        ("18446744073709551615,3", "the energy counter went back, as when the driver is loaded anew"),
        ("5000,5000", "the energy counter did not move in "),
    ],
)
def test_a_counter_that_did_not_go_on_has_no_energy(library: Path, counter: str, reason: str):
    found = watched(library, STUB_ENERGY=counter)["measurements"]
    assert found["energy_joules"].startswith(reason)
    assert found["gpu_utilisation"] == pytest.approx(0.8)


def test_a_gpu_without_a_counter_still_tells_the_rest(library: Path):
    found = watched(library, STUB_UNSUPPORTED="energy")["measurements"]
    assert found["energy_joules"] == "this GPU has no energy counter"
    assert found["peak_memory_bytes"] == 5 * 2**30 + 3


def test_in_a_container_only_the_memory_is_absent(library: Path):
    found = watched(library, STUB_PID="43", STUB_ENERGY="1,2")["measurements"]
    assert found["peak_memory_bytes"] == "the driver does not list process 42, as in a container with process numbers of its own"
    assert found["energy_joules"] == 0.001


# 1 for the session, 1 for the counter, 5 for each sample (processes are asked for twice): in the second one, in the third one
@pytest.mark.parametrize("answers", [9, 12])
def test_a_driver_that_dies_on_the_way_is_a_reason_for_everything(library: Path, answers: int):
    found = watched(library, STUB_DIES_AFTER=str(answers), STUB_ENERGY="1,2")
    assert set(found["measurements"].values()) == {"the driver does not answer: GPU is lost"}
    assert found["notes"] == {}


def test_a_block_that_is_shorter_than_the_driver_s_average_has_no_utilisation(library: Path):
    found = watched(library, period=1e6)["measurements"]
    assert found["gpu_utilisation"].endswith(" s are shorter than the 1e+06 s over which the driver averages")


def test_no_driver(monkeypatch: pytest.MonkeyPatch):
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    with GpuWatch("1234", lambda: None) as watch, pytest.raises(ValueError, match="has ended"):
        _ = watch.activity
    found = watch.activity.measurements()
    assert [m.metric for m in found] == ["energy_joules", "gpu_utilisation", "sm_clock_hertz", "throttled_fraction", "peak_memory_bytes"]
    assert {(m.value, m.reason, m.device) for m in found} == {(None, "no driver", "cuda")}
    assert watch.activity.notes() == {}


def test_a_block_that_fails_is_not_waited_for_and_has_no_energy():
    calls: list[str] = []
    watch = GpuWatch("1234", lambda: calls.append("synchronize"))
    with pytest.raises(KeyError, match="mine"), watch:
        raise KeyError("mine")
    assert calls == ["synchronize"]
    assert watch.activity.energy_joules == Reading(None, "the block ended by an error")


def test_what_waiting_for_the_device_raises_is_passed_on():
    waits = iter([None])

    def synchronize() -> None:
        if next(waits, "failed") == "failed":
            raise RuntimeError("illegal memory access")

    with pytest.raises(RuntimeError, match="illegal memory access"), GpuWatch("1234", synchronize):
        pass


@pytest.mark.parametrize(("value", "reason"), [(None, None), (1, "why")])
def test_a_reading_has_a_value_or_a_reason(value: int | None, reason: str | None):
    with pytest.raises(ValueError, match="either"):
        Reading(value, reason)


def test_memory_is_of_the_kind_that_the_driver_tells():
    there = Reading(3)
    found = Activity(1.0, there, there, there, there, there).measurements()
    assert {m.metric: m.kind for m in found if m.kind} == {"peak_memory_bytes": "device"}
