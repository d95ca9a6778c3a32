"""What the engine adds to training: its loop, budget, clocks and checkpoint against a bare PyTorch loop with the same model and loader.

Both train the same tiny model on the same generated clips from the same start, in turns in one process on one thread, and are compared
by the CPU time of the process, which a busy machine disturbs least. The engine's part contains the checkpoint that it writes at the end.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import one_thread
from torch import nn

from benchctl.budget import Budget
from benchctl.data import motion_shapes
from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import LoadSettings, train_batches
from benchctl.engine import models
from benchctl.engine.budget import Allowance
from benchctl.engine.step import TrainingStep
from benchctl.engine.train import Training
from benchctl.methods import videomae
from benchctl.recipe import COMMON_RECIPE
from benchctl.spec import Cell, DatasetRef
from benchctl.vocabulary import ClipShape

STEPS, ROUNDS = 40, 11
#: claimed: at most so much more CPU time
OVERHEAD = 0.02
OPTIONS = {"train_clips_per_class": 8, "test_clips_per_class": 1, "size": 64}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    root = motion_shapes.prepare(DatasetRef(name="motion_shapes", options=OPTIONS), tmp_path_factory.mktemp("clips"))
    return motion_shapes.load(root, motion_shapes.Options.model_validate(OPTIONS))


def cell() -> Cell:
    return Cell(
        task="train",
        method="videomae-tiny",
        config=videomae.Config.model_validate(videomae.PRESETS["videomae-tiny"]).model_dump(mode="json"),
        shape=ClipShape(frames=8, resolution=64, batch_size=16),
        precision="fp32",
        attention="sdpa",
        pretrained=False,
        pad=False,
        num_classes=8,
        seed=0,
        recipe=COMMON_RECIPE,
        dataset=DatasetRef(name="motion_shapes", options=OPTIONS),
        budget=Budget(match_on="steps", amount=STEPS),
    )


def engine(of: Cell, clips: ClipSet, settings: LoadSettings) -> float:
    """CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        step = TrainingStep(models.build(of), of.recipe, of.precision)
        assert of.budget is not None
        training = Training(of, step, clips, settings, Allowance(of.budget, of.shape, 1), Path(folder))
        began = time.process_time()
        training.run(threading.Event())
        return time.process_time() - began


def bare(of: Cell, clips: ClipSet, settings: LoadSettings) -> float:
    """CPU seconds of what one would write by hand."""
    model = models.build(of).train()
    matrices, others = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": of.recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=of.recipe.learning_rate, foreach=False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    began = time.process_time()
    batches = train_batches(clips, settings, seed=of.seed)

    def step() -> float:
        batch = next(batches)
        loss = nn.functional.cross_entropy(model(*batch.inputs), batch.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return float(loss.detach())

    # a function, so that nothing of a step is held during the next one: new pages for it would cost the loop some percent
    for _ in range(STEPS):
        step()
    return time.process_time() - began


def test_against_a_bare_loop(benchmark: BenchmarkFixture, clips: ClipSet) -> None:
    of = cell()
    settings = models.load_settings(of, clips)
    with one_thread():
        engine(of, clips, settings), bare(of, clips, settings)
        pairs = [(engine(of, clips, settings), bare(of, clips, settings)) for _ in range(ROUNDS)]
        added = statistics.median(ours / theirs for ours, theirs in pairs) - 1
        benchmark.extra_info.update(overhead=added)
        print(f"\nthe engine adds {added:.1%} to {statistics.median(theirs for _, theirs in pairs) / STEPS * 1e3:.0f} ms of a bare step")
        benchmark.pedantic(lambda: engine(of, clips, settings), rounds=1)
    assert added <= OVERHEAD
