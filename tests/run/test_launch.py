"""Ranks that die, hang or fail: the first cause, in time, and nothing left behind. Real processes, gloo on this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from benchctl.budget import Budget
from benchctl.data import motion_shapes
from benchctl.launch import Launch
from benchctl.methods import videomae
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Outcome
from benchctl.run.job import Job
from benchctl.run.launch import RankedWorker
from benchctl.run.process import Answer, ask
from benchctl.spec import Cell, DatasetRef
from benchctl.vocabulary import ClipShape

SMALL = {"train_clips_per_class": 2, "test_clips_per_class": 1}
#: a cell must be over so long after its rank died, in seconds
PROMPT = 10.0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetRef, Path]:
    ref = DatasetRef(name="motion_shapes", options=SMALL)
    return ref, motion_shapes.prepare(ref, tmp_path_factory.mktemp("shapes"))


def endless(ref: DatasetRef, launch: Launch, **changes: object) -> Cell:
    """A training that does not end by itself before the test does."""
    fields: dict[str, object] = {
        "task": "train",
        "method": "videomae-tiny",
        "config": videomae.Config.model_validate(videomae.PRESETS["videomae-tiny"]).model_dump(mode="json"),
        "shape": ClipShape(frames=4, resolution=32, batch_size=4),
        "precision": "fp32",
        "attention": "sdpa",
        "pretrained": False,
        "pad": False,
        "num_classes": 8,
        "seed": 0,
        "recipe": Recipe(),
        "dataset": ref,
        "budget": Budget(match_on="steps", amount=1_000_000, evaluate_at=(1.0,)),
        "launch": launch,
    }
    return Cell.model_validate({**fields, **changes})


class Launched:
    """A cell that is trained by ranks, in a thread of its own, so that a test can do something to them."""

    def __init__(self, cell: Cell, root: Path, folder: Path) -> None:
        self.folder = folder
        self.stop = threading.Event()
        self.answer: CellResult | Answer | None = None
        self.ended_at = 0.0
        folder.mkdir(exist_ok=True)
        self.worker = RankedWorker(folder / "cell.log", cell.launch or Launch(), threads=1)
        job = Job(kind="execute", cell=cell, device="cpu", data_root=str(root), checkpoint_folder=str(folder / "checkpoint"))
        self.thread = threading.Thread(target=self._run, args=(job,))
        self.thread.start()

    def _run(self, job: Job) -> None:
        self.answer = ask(self.worker, job, self.folder, timeout_s=240, stop=self.stop)
        self.ended_at = time.monotonic()

    def processes(self) -> list[int]:
        return [rank.worker.pid for rank in self.worker._ranks]

    def wait_for(self, word: str, seconds: float = 180) -> None:
        """Until every rank does something that `word` is part of."""
        end = time.monotonic() + seconds
        while not all(word in rank.doing() for rank in self.worker._ranks):
            assert self.answer is None, self.answer
            assert time.monotonic() < end, [rank.doing() for rank in self.worker._ranks]
            time.sleep(0.05)

    def over(self, seconds: float) -> CellResult | Answer:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "still going on"
        assert self.answer is not None
        return self.answer


def left_behind(launched: Launched, before: set[str]) -> list[str]:
    """Processes, beats, compiled things and shared memory that are still there."""
    alive = [f"process {pid}" for pid in launched.processes() if Path(f"/proc/{pid}").exists()]
    files = [str(f) for f in launched.folder.iterdir() if f.suffix == ".beat" or "extensions" in f.name]
    # memory that others share on this machine may come and go: only ours would be named like torch's or DeepSpeed's
    shared = {name for name in os.listdir("/dev/shm") if name.startswith(("torch_", "ds_", "gloo", "nccl"))} - before  # noqa: PTH208
    return [*alive, *files, *sorted(shared)]


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))  # noqa: PTH208


@pytest.mark.parametrize("launch", [Launch(gpus=2), Launch(engine="deepspeed", zero=2, gpus=2)], ids=["ddp", "deepspeed"])
def test_a_killed_rank_ends_the_cell_and_is_named(shapes, tmp_path: Path, launch: Launch):
    ref, root = shapes
    before = shared_memory()
    launched = Launched(endless(ref, launch), root, tmp_path / "cell")
    launched.wait_for("step")
    killed_at = time.monotonic()
    os.kill(launched.processes()[1], signal.SIGKILL)
    answer = launched.over(60)
    assert launched.ended_at - killed_at < PROMPT
    assert answer.outcome is Outcome.FAILED
    assert answer.reason.startswith("rank 1 of 2: the worker was ended by SIGKILL (out of memory?)")
    assert left_behind(launched, before) == []


def test_a_hung_rank_ends_the_cell_and_is_named(shapes, tmp_path: Path):
    ref, root = shapes
    before = shared_memory()
    launched = Launched(endless(ref, Launch(gpus=2, hang_timeout_s=60)), root, tmp_path / "cell")
    launched.wait_for("step")
    # joined and in its steps: from here on, three seconds of silence are many
    launched.worker._launch = launched.worker._launch.model_copy(update={"hang_timeout_s": 3.0})
    stopped_at = time.monotonic()
    os.kill(launched.processes()[1], signal.SIGSTOP)
    answer = launched.over(60)
    assert launched.ended_at - stopped_at < 3 + PROMPT
    assert answer.outcome is Outcome.FAILED
    assert answer.reason.startswith("rank 1 of 2 is hung: no progress for")
    assert left_behind(launched, before) == []


def test_interrupting_ends_at_a_checkpoint_that_is_gone_on_from(shapes, tmp_path: Path):
    ref, root = shapes
    launched = Launched(endless(ref, Launch(gpus=2)), root, tmp_path / "cell")
    launched.wait_for("step")
    launched.stop.set()
    answer = launched.over(60)
    assert answer.outcome is Outcome.INTERRUPTED
    assert (tmp_path / "cell" / "checkpoint" / "checkpoint.pt").is_file()
    assert left_behind(launched, set()) == []


def test_the_error_of_one_rank_is_that_of_the_cell(shapes, tmp_path: Path):
    """Not that its partner lost a connection."""
    ref, _ = shapes
    launched = Launched(endless(ref, Launch(gpus=2)), tmp_path / "nothing", tmp_path / "cell")
    answer = launched.over(180)
    assert answer.outcome is Outcome.FAILED
    assert re.match(r"rank [01] of 2: .*nothing.*no such file", answer.reason)
