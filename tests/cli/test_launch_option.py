"""`benchctl run --launch`: what is refused before anything starts."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from benchctl.cli import machine
from benchctl.errors import DeviceMissing, MissingError, UsageError
from benchctl.launch import Launch
from benchctl.run.tasks import Tasks


def facts(*, gpus: int = 0, cores: int = 2) -> machine.Facts:
    return machine.Facts(cuda=gpus > 0, cores=cores, environment=SimpleNamespace(gpus=("a GPU",) * gpus))  # type: ignore[arg-type]


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(DeviceMissing, match="8 GPUs are asked for, and there are 2"):
        machine.check_launches([Launch(gpus=8)], facts(gpus=2), "auto")
    machine.check_launches([Launch(gpus=2)], facts(gpus=2), "auto")


def test_more_cpu_ranks_than_cores() -> None:
    with pytest.raises(DeviceMissing, match="8 are asked for on 4 cores"):
        machine.check_launches([Launch(gpus=8)], facts(cores=4), "auto")


def test_cpu_ranks_are_said_to_be_no_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    machine.check_launches([Launch(gpus=2)], facts(), "auto")
    assert capsys.readouterr().err == "benchctl: no GPU is used: ranks are CPU processes, connected by gloo\n"


def test_a_deepspeed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="DeepSpeed is not installed") as missing:
        machine.check_launches([Launch(engine="deepspeed")], facts(), "auto")
    assert missing.value.exit_code == 3


def test_other_nodes_are_started_by_a_launcher() -> None:
    across = Launch(gpus=2, nodes=2)
    with pytest.raises(MissingError, match="2 nodes are asked for, and this is one process") as alone:
        machine.check_launches([across], facts(), "auto")
    assert "srun --nodes 2 --ntasks-per-node 2 benchctl run" in str(alone.value.fix)
    machine.check_launches([across], facts(), "auto", Tasks("srun", 0, 4, 0, 2, "slurm-1.0", "node1"))
    with pytest.raises(UsageError, match="4 ranks on 2 nodes are asked for, and srun started 2 on 2"):
        machine.check_launches([across], facts(), "auto", Tasks("srun", 0, 2, 0, 2, "slurm-1.0", "node1"))
    with pytest.raises(UsageError, match="torchrun started 2 tasks, and no launch is of several nodes"):
        machine.check_launches([Launch(gpus=2)], facts(), "auto", Tasks("torchrun", 0, 2, 0, 1, "torchrun-none-1", "node1"))
