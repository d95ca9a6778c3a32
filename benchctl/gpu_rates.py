"""How many V100s a GPU stands for, by three published conventions, and what they make of a training's seconds.

    V100 GPU-hours = seconds x GPUs x factor / 3600

The tables disagree, by a factor of 2.7 on the newest GPU, so a normalised number always says which one it is from. Their names carry a
version: a table that changes gets a new name. A GPU that a table lacks is unknown there, never borrowed from another table, and never
found by a part of its name: an A10G is not an A10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from benchctl.errors import unknown


@dataclass(frozen=True)
class Table:
    """One convention."""

    #: where the numbers are from
    source: str
    #: V100s by GPU, as the source tells GPUs apart
    factors: Mapping[str, float]


@dataclass(frozen=True)
class Factor:
    """How many V100s one GPU stands for."""

    value: float
    table: str
    source: str


@dataclass(frozen=True)
class Unknown:
    """Why a table has no factor for a GPU."""

    reason: str


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "moose-v1": Table("the MOOSE paper, which names no source", {"V100": 1.0, "A6000": 1.4, "A100": 2.5}),
        "peak-dense16-v1": Table(
            "peak dense 16-bit tensor TFLOPS of NVIDIA's data sheets, over the V100's 125",
            {
                "T4": 0.52,
                "V100": 1.0,
                "A10": 1.00,
                "A6000": 1.24,
                "A100": 2.50,
                "L40S": 2.90,
                "H100 PCIe": 6.05,
                "H100 SXM": 7.91,
                "H200": 7.91,
                "B200": 18.0,
            },
        ),
        "lambda-fp16-v1": Table(
            "Lambda's published fp16 training throughput over that of its V100, geometric mean of five models",
            {
                "V100": 1.0,
                "A10": 0.77,
                "RTX 3090": 1.00,
                "A6000": 1.18,
                "RTX 4090": 1.68,
                "RTX 6000 Ada": 1.51,
                "A100 40 GB PCIe": 1.94,
                "A100 80 GB SXM": 2.36,
                "H100 PCIe": 3.10,
                "H100 SXM": 4.51,
                "H200": 5.07,
                "B200": 6.56,
            },
        ),
    }
)

#: what the driver and CUDA call a GPU, without "NVIDIA " -> what tables call it; some tell variants apart and some do not
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # a V100 is the unit, on whichever board; the V100S and the FHHL card have other clocks
        "Tesla V100-SXM2-16GB": ("V100",),
        "Tesla V100-SXM2-32GB": ("V100",),
        "Tesla V100-SXM3-32GB": ("V100",),
        "Tesla V100-PCIE-16GB": ("V100",),
        "Tesla V100-PCIE-32GB": ("V100",),
        "Tesla V100-DGXS-16GB": ("V100",),
        "Tesla V100-DGXS-32GB": ("V100",),
        "Tesla T4": ("T4",),
        "A10": ("A10",),
        "RTX A6000": ("A6000",),
        "GeForce RTX 3090": ("RTX 3090",),
        "GeForce RTX 4090": ("RTX 4090",),
        "RTX 6000 Ada Generation": ("RTX 6000 Ada",),
        "A100-PCIE-40GB": ("A100", "A100 40 GB PCIe"),
        "A100-SXM4-40GB": ("A100",),
        "A100 80GB PCIe": ("A100",),
        "A100-SXM4-80GB": ("A100", "A100 80 GB SXM"),
        "L40S": ("L40S",),
        "H100 PCIe": ("H100 PCIe",),
        "H100 80GB HBM3": ("H100 SXM",),
        "H200": ("H200",),
        "B200": ("B200",),
    }
)


def factor(gpu_name: str, table: str) -> Factor | Unknown:
    """How many V100s a GPU stands for by one table.

    Args:
        gpu_name: as the driver or CUDA gives it, for example `NVIDIA H100 80GB HBM3`, which is the SXM board.
        table: a name of `TABLES`.

    Raises:
        UnknownName: no such table.
    """
    if table not in TABLES:
        raise unknown("table of GPU-hour factors", table, TABLES)
    factors = TABLES[table].factors
    found = [factors[name] for name in table_names(gpu_name) if name in factors]
    if found:
        return Factor(found[0], table, TABLES[table].source)
    if " MIG " in gpu_name:
        return Unknown(f"unknown GPU '{gpu_name}': a MIG slice is a part of a GPU, and table {table} lists whole ones")
    return Unknown(f"unknown GPU '{gpu_name}': table {table} lists {', '.join(factors)}")


def normalised_seconds(gpu_seconds: float, factor: Factor) -> float:
    """V100 GPU-seconds that `gpu_seconds` (seconds x GPUs) stand for."""
    return gpu_seconds * factor.value


def is_v100(gpu_name: str) -> bool:
    """Whether a GPU is the unit, by the name that the driver or CUDA gives it."""
    return "V100" in table_names(gpu_name)


def table_names(gpu_name: str) -> tuple[str, ...]:
    """What the tables call the GPU that the driver or CUDA gives this name, the plainest first; empty: they do not know it."""
    return _NAMES.get(gpu_name.removeprefix("NVIDIA "), ())
