"""Several tasks of a launcher, here on one machine: how they are recognised, meet, work and end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from benchctl.errors import MissingError
from benchctl.run.tasks import JOIN, Hands, RemoteWorker, Tasks, tasks

LIMIT = 300


def two(number: int = 0) -> Tasks:
    return Tasks("srun", number, 2, 0, 2, "slurm-7.0", "127.0.0.1")


SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
SRUN |= {"SLURM_STEP_ID": "0", "SLURMD_NODENAME": "node2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "16", "LOCAL_RANK": "0", "GROUP_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def test_launchers_are_recognised_by_what_they_set():
    assert tasks(SRUN) == Tasks("srun", 3, 4, 1, 2, "slurm-7.0", "node2")
    assert tasks(TORCHRUN) == Tasks("torchrun", 0, 16, 0, 2, "torchrun-none-29500", "node1")
    assert tasks({}) is None
    # a batch script is one process, whatever its job has; so is a step of one task
    assert tasks({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}) is None
    assert tasks({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None


SUITE = """
name: nodes
task: train
methods: timesformer-tiny
sweep:
  - {frames: 4, resolution: 32, batch_size: 4}
dataset: {name: motion_shapes, options: {train_clips_per_class: 1, test_clips_per_class: 1, size: 32}}
budget: {match_on: steps, amount: 3}
seeds: [0]
recipe: common
launch: {nodes: 2, gpus: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nodes.yaml").write_text(SUITE)
    return tmp_path


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.Popen(
        [*command, "-m", "benchctl", "run", "nodes.yaml", "--db", "nodes.db", "--device", "cpu"],
        cwd=folder,
        env={**inherited, "BENCHCTL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def slurm_task(folder: Path, number: int, join_seconds: float = 60) -> subprocess.Popen[str]:
    """As `srun --nodes 2 --ntasks-per-node 1` starts it."""
    said = SRUN | {"SLURM_PROCID": str(number), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "127.0.0.1"}
    return start(folder, sys.executable, **said, **{JOIN: str(join_seconds)})


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, printed


def trained(folder: Path) -> list[str]:
    report = [sys.executable, "-m", "benchctl", "report", "--table", "accuracy", "--db", "nodes.db", "--format", "csv"]
    return subprocess.run(report, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.slow
def test_torchrun_on_two_nodes(folder: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    common += ["--master-port", str(port)]
    nodes = [start(folder, sys.executable, *common, "--node-rank", str(number)) for number in (0, 1)]
    told = [ended(node) for node in nodes]
    assert [code for code, _ in told] == [0, 0], told
    assert "1 cells: 1 ok" in told[0][1]
    assert any("timesformer-tiny" in line for line in trained(folder))
    # the second rank's work, and nothing left of their meeting
    assert list(folder.glob("work/*/*.rank1.log"))
    assert not list(folder.glob("work/*.meeting"))


@pytest.mark.slow
def test_a_node_that_dies_ends_the_cell_and_the_run_says_which(folder: Path):
    (folder / "nodes.yaml").write_text(SUITE.replace("amount: 3", "amount: 100000"))
    first, second = slurm_task(folder, 0), slurm_task(folder, 1)
    deadline = time.monotonic() + LIMIT
    while not list(folder.glob("work/*/*.rank1.log")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.2)
    time.sleep(3)
    os.killpg(second.pid, signal.SIGKILL)
    gone = time.monotonic()
    code, printed = ended(first)
    assert code == 1
    assert time.monotonic() - gone < 20
    assert "rank 1 of 2: task 1 on " in printed
    assert " is gone" in printed
    ended(second)


def test_a_node_that_cannot_be_reached_is_told_before_anything_starts(folder: Path):
    code, printed = ended(slurm_task(folder, 0, join_seconds=2))
    assert code == 3
    assert "of the tasks 0 to 1, 1 did not come within 2 s" in printed
    assert not list(folder.glob("work/*"))
    code, printed = ended(slurm_task(folder, 1, join_seconds=2))
    assert code == 3
    assert "task 1 of 2 cannot reach the first one" in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_stranger_is_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(JOIN, "3")
    refused: list[str] = []

    def gather() -> None:
        try:
            Hands(two(), tmp_path)
        except MissingError as error:
            refused.append(str(error))

    gathering = threading.Thread(target=gather)
    gathering.start()
    file = tmp_path / "work" / "slurm-7.0.meeting"
    while not file.exists():
        time.sleep(0.05)
    assert file.stat().st_mode & 0o077 == 0
    met = json.loads(file.read_bytes())
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client((met["address"], met["port"]), authkey=b"guessed")
    gathering.join(LIMIT)
    assert "1 did not come" in refused[0]


def test_a_hand_starts_a_worker_and_ends_it(tmp_path: Path, folder: Path):
    hand = slurm_task(folder, 1)
    with Hands(two(), folder) as hands:
        worker = RemoteWorker(hands[1], tmp_path / "worker.log", threads=1, extra={"RANK": "1"})
        assert worker.answered(0.5) is None
        worker.signal(signal.SIGKILL)
        worker.hand_over(tmp_path / "job.json", tmp_path / "result.json")
        answer = None
        deadline = time.monotonic() + 30
        while answer is None and time.monotonic() < deadline:
            answer = worker.answered(0.5)
        assert answer is not None
        assert "SIGKILL" in str(answer.reason)
        assert worker.signalled
        worker.end(grace_s=0.0)
    assert ended(hand) == (0, "")
