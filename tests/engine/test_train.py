"""Training on real mp4 files: budgets, resuming, checkpoints, unreadable clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_cells import STEPS, StopAfter, cell, run

from benchctl.engine import checkpoint, models
from benchctl.errors import BenchctlError
from benchctl.record import Outcome
from benchctl.spec import Recipe


def test_training_uses_its_budget_and_is_evaluated(shapes, tmp_path: Path):
    ref, root = shapes
    result = run(cell(ref), root, tmp_path)
    assert result.outcome is Outcome.OK
    assert result.value("steps") == STEPS
    assert result.value("samples") == STEPS * 4
    assert result.value("frames_seen") == STEPS * 4 * 4
    assert result.value("clips", kind="test") == 8
    assert 0 <= result.value("top1") <= result.value("top5") <= 1
    assert result.value("train_seconds") > 0
    assert result.notes["weights"] == "random"
    content = checkpoint.load(Path(result.checkpoint))
    assert content["step"] == STEPS


def test_evaluating_the_checkpoint_gives_the_same_accuracy(shapes, tmp_path: Path):
    ref, root = shapes
    trained = run(cell(ref), root, tmp_path)
    again = run(cell(ref, task="evaluate", seed=5), root, tmp_path, checkpoint=Path(trained.checkpoint))
    assert again.value("top1") == trained.value("top1")
    assert again.value("top5") == trained.value("top5")
    assert f"after {STEPS} steps" in again.notes["weights"]


def test_stopped_and_resumed_gives_the_same_bytes(shapes, tmp_path: Path):
    ref, root = shapes
    whole = run(cell(ref), root, tmp_path / "whole")
    for attempt in (2, 3):
        stopped = run(cell(ref), root, tmp_path / "parts", StopAfter(attempt))
        assert stopped.outcome is Outcome.INTERRUPTED
    finished = run(cell(ref), root, tmp_path / "parts")
    assert finished.outcome is Outcome.OK
    a, b = (checkpoint.load(Path(r.checkpoint)) for r in (whole, finished))
    assert a["record"]["losses"] == b["record"]["losses"]
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_a_loss_that_is_not_finite_is_diverged(shapes, tmp_path: Path):
    ref, root = shapes
    wild = Recipe(learning_rate=1e30, warmup_fraction=0, optimizer="sgd")
    result = run(cell(ref, recipe=wild), root, tmp_path)
    assert result.outcome is Outcome.DIVERGED
    assert "the loss became" in result.reason
    assert result.value("top1") is None


def test_a_torn_checkpoint_says_what_to_do(shapes, tmp_path: Path):
    ref, root = shapes
    (tmp_path / checkpoint.FILE).write_bytes(b"torn")
    with pytest.raises(BenchctlError, match=r"not a readable checkpoint.*train again with --fresh"):
        run(cell(ref), root, tmp_path)


def test_a_checkpoint_of_another_preset_does_not_fit(shapes, tmp_path: Path):
    ref, root = shapes
    trained = run(cell(ref), root, tmp_path)
    with pytest.raises(BenchctlError, match=r"does not fit 'videomae-tiny'.*name the checkpoint of this preset"):
        run(cell(ref, task="evaluate", num_classes=9), root, tmp_path, checkpoint=Path(trained.checkpoint))


def test_unreadable_clips_are_counted_and_named(shapes, tmp_path: Path):
    import shutil

    ref, root = shapes
    broken = tmp_path / "data"
    shutil.copytree(root, broken)
    clips = models.load_clips(cell(ref), broken)
    (broken / clips.train[0].id).write_bytes(b"")
    (broken / clips.test[0].id).write_bytes(b"not a video")
    result = run(cell(ref), broken, tmp_path / "checkpoints")
    assert result.outcome is Outcome.OK
    assert result.value("unreadable_clips", kind="train") == 1
    assert result.value("unreadable_clips", kind="test") == 1
    assert result.value("clips", kind="test") == 7
    named = "\n".join(result.notes["unreadable_clips"])
    assert clips.train[0].id in named
    assert clips.test[0].id in named


def test_data_that_changed_since_the_plan_is_refused(shapes, tmp_path: Path):
    ref, root = shapes
    with pytest.raises(BenchctlError, match="changed while the suite ran"):
        run(cell(ref, data_fingerprint="0" * 64), root, tmp_path)
