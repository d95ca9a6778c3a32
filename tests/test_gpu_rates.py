from __future__ import annotations

import pytest

from benchctl.errors import UnknownName
from benchctl.gpu_rates import TABLES, Factor, Unknown, factor, is_v100, normalised_seconds

MOOSE, PEAK, LAMBDA = "moose-v1", "peak-dense16-v1", "lambda-fp16-v1"


@pytest.mark.parametrize(
    ("name", "moose", "peak", "measured"),
    [
        ("Tesla V100-SXM2-16GB", 1, 1, 1),
        ("Tesla V100-SXM2-32GB", 1, 1, 1),
        ("Tesla V100-PCIE-32GB", 1, 1, 1),
        ("Tesla T4", None, 0.52, None),
        ("NVIDIA A10", None, 1.00, 0.77),
        ("NVIDIA RTX A6000", 1.4, 1.24, 1.18),
        ("RTX A6000", 1.4, 1.24, 1.18),
        ("NVIDIA GeForce RTX 3090", None, None, 1.00),
        ("NVIDIA GeForce RTX 4090", None, None, 1.68),
        ("NVIDIA RTX 6000 Ada Generation", None, None, 1.51),
        ("NVIDIA A100-PCIE-40GB", 2.5, 2.5, 1.94),
        ("NVIDIA A100-SXM4-40GB", 2.5, 2.5, None),
        ("NVIDIA A100 80GB PCIe", 2.5, 2.5, None),
        ("NVIDIA A100-SXM4-80GB", 2.5, 2.5, 2.36),
        ("NVIDIA L40S", None, 2.90, None),
        ("NVIDIA H100 PCIe", None, 6.05, 3.10),
        ("NVIDIA H100 80GB HBM3", None, 7.91, 4.51),
        ("NVIDIA H200", None, 7.91, 5.07),
        ("NVIDIA B200", None, 18.0, 6.56),
    ],
)
def test_what_each_table_says(name: str, moose: float | None, peak: float | None, measured: float | None):
    for table, expected in ((MOOSE, moose), (PEAK, peak), (LAMBDA, measured)):
        found = factor(name, table)
        if expected is None:
            assert isinstance(found, Unknown), table
            assert found.reason.startswith(f"unknown GPU '{name}': table {table} lists ")
        else:
            assert found == Factor(expected, table, TABLES[table].source), table


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A10G",
        "NVIDIA A100",
        "NVIDIA A1",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA RTX 6000",
        "Quadro RTX 6000",
        "NVIDIA RTX A6000 Laptop GPU",
        "NVIDIA H100 NVL",
        "NVIDIA H100",
        "NVIDIA H200 NVL",
        "NVIDIA GH200 480GB",
        "NVIDIA L40",
        "NVIDIA T4G",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "Tesla V100S-PCIE-32GB",
        "Tesla V100-FHHL-16GB",
        "nvidia h200",
        "NVIDIA NVIDIA H200",
        "",
    ],
)
@pytest.mark.parametrize("table", TABLES)
def test_a_name_that_resembles_one_is_unknown(name: str, table: str):
    assert isinstance(factor(name, table), Unknown)


def test_an_unknown_gpu_is_told_what_the_table_lists():
    assert factor("NVIDIA H100 80GB HBM3", MOOSE) == Unknown("unknown GPU 'NVIDIA H100 80GB HBM3': table moose-v1 lists V100, A6000, A100")


@pytest.mark.parametrize("table", TABLES)
def test_a_slice_is_not_the_whole(table: str):
    found = factor("NVIDIA A100-SXM4-40GB MIG 1g.5gb", table)
    assert isinstance(found, Unknown)
    assert "a MIG slice is a part of a GPU" in found.reason


def test_an_unknown_table_is_an_error():
    with pytest.raises(UnknownName, match=r"'moose-v2'; did you mean 'moose-v1'\?"):
        factor("NVIDIA H200", "moose-v2")


def test_every_table_has_a_source_and_the_v100_as_its_unit():
    for table in TABLES.values():
        assert table.source
        assert table.factors["V100"] == 1.0


def test_hours_worked_example():
    # 4 A100s for 90 minutes
    known = factor("NVIDIA A100-SXM4-80GB", MOOSE)
    assert isinstance(known, Factor)
    assert normalised_seconds(5400.0 * 4, known) / 3600 == 15.0


@pytest.mark.parametrize(("name", "expected"), [("Tesla V100-SXM2-32GB", True), ("Tesla V100S-PCIE-32GB", False), ("NVIDIA A10", False)])
def test_which_gpus_are_the_unit(name: str, expected: bool):
    assert is_v100(name) == expected
