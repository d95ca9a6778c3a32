"""What the commands need to know of this machine."""

from __future__ import annotations

import importlib.util
import re
import secrets
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchctl.errors import DeviceMissing, MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchctl.launch import Launch
    from benchctl.record import Environment, RunRecord
    from benchctl.run.tasks import Tasks
    from benchctl.suite_file import LoadedSuite


@dataclass(frozen=True)
class Facts:
    """This machine, for one command."""

    cuda: bool
    cores: int
    environment: Environment


def facts(device: str) -> Facts:
    """Read the machine.

    Raises:
        DeviceMissing: `device` is cuda and there is none.
    """
    from benchctl.probes.device import cuda_unavailable, gpus
    from benchctl.run.provenance import environment

    missing = cuda_unavailable()
    if device == "cuda" and missing:
        raise DeviceMissing(f"no GPU can be used: {missing}", where="--device cuda", fix="run 'benchctl doctor', or leave --device out")
    found = gpus()
    here = environment(found.gpus, found.driver, found.cuda)
    return Facts(cuda=missing is None, cores=here.cpu_cores, environment=here)


def check_launches(launches: Sequence[Launch], machine: Facts, device: str, tasks: Tasks | None = None) -> None:
    """See, before anything starts, that the processes that a suite asks for can be had here; say so where they are no GPUs.

    Args:
        launches: of the suite.
        machine: this one.
        device: that was asked for.
        tasks: what a launcher started, of which this process is the first.

    Raises:
        MissingError: DeepSpeed is not installed, GPUs or cores are too few, or nobody started the processes of other nodes.
        UsageError: a launcher started others than the launch asks for.
    """
    for launch in launches:
        _check_launch(launch, machine, device, tasks)
    if tasks is not None and all(launch.nodes == 1 for launch in launches):
        what = f"{tasks.launcher} started {tasks.count} tasks, and no launch is of several nodes"
        raise UsageError(what, where="launch.nodes", fix="start one task, which starts the ranks of its node itself; or set 'nodes'")
    if launches and (device == "cpu" or not machine.cuda):
        print("benchctl: no GPU is used: ranks are CPU processes, connected by gloo", file=sys.stderr)  # noqa: T201


def _check_launch(launch: Launch, machine: Facts, device: str, tasks: Tasks | None) -> None:
    if launch.engine == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise MissingError("DeepSpeed is not installed", where="launch.engine", fix="pip install 'benchctl[deepspeed]', or use 'plain'")
    if launch.nodes > 1:
        _check_nodes(launch, tasks)
        return
    gpus = len(machine.environment.gpus)
    if machine.cuda and device != "cpu":
        if launch.gpus > gpus:
            raise DeviceMissing(f"{launch.gpus} GPUs are asked for, and there are {gpus}", where="launch.gpus", fix=f"set it to {gpus}")
        return
    if launch.gpus > max(2, machine.cores):
        what = f"without a GPU, ranks are CPU processes: {launch.gpus} are asked for on {machine.cores} cores"
        raise DeviceMissing(what, where="launch.gpus", fix=f"set it to {max(2, machine.cores)} or less")


def _check_nodes(launch: Launch, tasks: Tasks | None) -> None:
    command = "benchctl run ..."
    fix = f"srun --nodes {launch.nodes} --ntasks-per-node {launch.gpus} {command}, or torchrun --nnodes {launch.nodes} "
    fix += f"--nproc-per-node {launch.gpus} --no-python {command} on each node"
    if tasks is None:
        raise MissingError(f"{launch.nodes} nodes are asked for, and this is one process", where="launch.nodes", fix=f"start it by {fix}")
    if (tasks.count, tasks.nodes) != (launch.ranks, launch.nodes):
        what = f"{launch.ranks} ranks on {launch.nodes} nodes are asked for, and {tasks.launcher} started {tasks.count} on {tasks.nodes}"
        raise UsageError(what, where="launch", fix=fix)


def run_record(loaded: LoadedSuite, machine: Facts) -> RunRecord:
    """A new run of `loaded` by this command line."""
    from benchctl.record import RunRecord

    now = datetime.now(UTC)
    return RunRecord(
        # many may begin in the same second
        run_id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        suite=loaded.suite.name,
        suite_json=loaded.canonical,
        command=without_passwords(shlex.join(["benchctl", *sys.argv[1:]])),
        started_at=now.isoformat(timespec="seconds"),
        environment=machine.environment,
    )


def without_passwords(command: str) -> str:
    """`command` with `***` for passwords in URLs: whoever shares the database reads it."""
    return re.sub(r"([?&]password=)[^&\s']*", r"\1***", re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", command))
