from typing import get_args

from benchctl.gpu_models import DEFAULT_GPU, GPUS, GpuName
from benchctl.gpu_rates import TABLES


def test_every_name_is_a_gpu():
    assert set(get_args(GpuName)) == set(GPUS)
    assert DEFAULT_GPU in GPUS


def test_names_are_those_of_the_tables_of_factors():
    known = {name.partition(" 40 GB")[0].partition(" 80 GB")[0] for table in TABLES.values() for name in table.factors}
    assert set(GPUS) == known


def test_hopper_begins_with_capability_nine():
    assert {name for name, gpu in GPUS.items() if gpu.hopper} == {"H100 PCIe", "H100 SXM", "H200", "B200"}
