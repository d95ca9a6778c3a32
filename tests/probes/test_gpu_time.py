from __future__ import annotations

import pytest

from benchctl.gpu_rates import TABLES
from benchctl.probes.gpu_time import ON_A_CPU, gpu_time_measurements


def test_worked_example():
    found, notes = gpu_time_measurements(100.0, 2, "NVIDIA RTX A6000")
    assert [(m.metric, m.kind, m.value, m.device) for m in found] == [
        ("gpu_seconds", "", 200.0, "cuda"),
        ("v100_gpu_seconds", "moose-v1", 280.0, "cuda"),
        ("v100_gpu_seconds", "peak-dense16-v1", 248.0, "cuda"),
        ("v100_gpu_seconds", "lambda-fp16-v1", 236.0, "cuda"),
    ]
    assert (notes["gpu"], notes["gpus"]) == ("NVIDIA RTX A6000", 2)
    assert notes["v100_factors"]["moose-v1"] == {"factor": 1.4, "source": TABLES["moose-v1"].source}
    assert set(notes["v100_factors"]) == set(TABLES)


def test_a_gpu_that_a_table_lacks_keeps_its_raw_time():
    found, notes = gpu_time_measurements(10.0, 1, "NVIDIA H100 NVL")
    assert found[0].value == 10.0
    assert [(m.kind, m.value) for m in found[1:]] == [(table, None) for table in TABLES]
    for m in found[1:]:
        assert m.reason is not None
        assert m.reason.startswith(f"unknown GPU 'NVIDIA H100 NVL': table {m.kind} lists ")
    assert notes["v100_factors"] == {}


def test_cpu_time_is_recorded_and_never_normalised():
    found, notes = gpu_time_measurements(60.0, 0, None, cpu_seconds=110.0)
    assert [(m.metric, m.value, m.device) for m in found[:1]] == [("cpu_seconds", 110.0, "cpu")]
    assert [(m.metric, m.kind, m.value, m.reason) for m in found[1:]] == [("v100_gpu_seconds", table, None, ON_A_CPU) for table in TABLES]
    assert notes == {}
    unread, _ = gpu_time_measurements(60.0, 0, None)
    assert (unread[0].value, unread[0].reason) == (None, "the CPU time was not read")


@pytest.mark.parametrize(("gpus", "name"), [(1, None), (0, "Tesla T4"), (-1, "Tesla T4")])
def test_gpus_without_a_name_and_a_name_without_gpus(gpus: int, name: str | None):
    with pytest.raises(ValueError, match="GPUs of the name"):
        gpu_time_measurements(1.0, gpus, name)
