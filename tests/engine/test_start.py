"""Training that starts from another cell's weights, that trains a part of a model, or with a part of the clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_cells import STEPS, StopAfter, cell, run

from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.engine import checkpoint, models
from benchctl.engine.step import TrainingStep
from benchctl.errors import BenchctlError
from benchctl.recipe import Recipe
from benchctl.record import Outcome

HEAD = {"video.classifier.weight", "video.classifier.bias"}


def weights(result) -> dict[str, torch.Tensor]:
    return checkpoint.load(Path(result.checkpoint))["model"]


def test_the_head_is_what_grows_with_the_classes(shapes):
    assert models.head_names(cell(shapes[0])) == HEAD


def test_only_the_head_learns_and_starts_anew(shapes, tmp_path: Path):
    ref, root = shapes
    first = run(cell(ref), root, tmp_path / "first")
    probe = cell(ref, seed=1, start="cell:abc", recipe=Recipe(learning_rate=1e-2, train_only="head"))
    second = run(probe, root, tmp_path / "second", checkpoint=Path(first.checkpoint))
    assert second.outcome is Outcome.OK
    assert second.notes["weights"] == f"from train cell {cell(ref).id} after {STEPS} steps, classifier random"
    before, after, fresh = weights(first), weights(second), models.build(probe).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name not in HEAD)
    assert not torch.equal(after["video.classifier.weight"], before["video.classifier.weight"])
    assert not torch.equal(after["video.classifier.weight"], fresh["video.classifier.weight"])


def test_a_start_that_was_interrupted_goes_on_where_it_was(shapes, tmp_path: Path):
    ref, root = shapes
    start = Path(run(cell(ref, seed=3), root, tmp_path / "start").checkpoint)
    asked = cell(ref, start="cell:abc")
    whole = run(asked, root, tmp_path / "whole", checkpoint=start)
    assert run(asked, root, tmp_path / "parts", StopAfter(3), checkpoint=start).outcome is Outcome.INTERRUPTED
    finished = run(asked, root, tmp_path / "parts", checkpoint=start)
    a, b = weights(whole), weights(finished)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_start_of_another_size_or_method_is_refused(shapes, tmp_path: Path):
    ref, root = shapes
    asked = cell(ref)
    start = Path(run(asked, root, tmp_path / "start").checkpoint)
    narrower = asked.model_copy(update={"config": {**asked.config, "width": 48}})
    with pytest.raises(BenchctlError, match=r"does not fit 'videomae-tiny': .*; train it again with --fresh"):
        models.start(models.build(narrower), narrower, start)
    shallower = asked.model_copy(update={"config": {**asked.config, "layers": 3}})
    with pytest.raises(BenchctlError, match=r"does not fit 'videomae-tiny': video\.videomae"):
        models.start(models.build(shallower), shallower, start)
    other = asked.model_copy(update={"method": "timesformer-tiny"})
    with pytest.raises(BenchctlError, match="a checkpoint of 'videomae-tiny', not of 'timesformer-tiny'"):
        models.start(nn.Linear(1, 1), other, start)


def test_scores_of_every_clip_are_kept(shapes, tmp_path: Path):
    ref, root = shapes
    result = run(cell(ref), root, tmp_path)
    with np.load(result.notes["scores"]) as kept:
        assert (len(kept["ids"]), kept["scores"].shape, kept["scores"].dtype) == (8, (8, 8), np.float64)
        np.testing.assert_allclose(kept["scores"].sum(1), 1, rtol=1e-5)
        assert (kept["scores"].argmax(1) == kept["labels"]).mean() == result.value("top1")


def test_frozen_parts_keep_their_statistics_and_drop_nothing():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()), nn.Dropout(), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    TrainingStep(model, Recipe(), "fp32").start()
    assert [m.training for m in (model[0], model[0][1], model[0][2], model[1], model[2])] == [False, False, False, True, True]


def clips(counts: dict[int, int]) -> ClipSet:
    records = [ClipRecord(f"{label}/{i}", Path(f"{label}/{i}"), label, "train") for label, n in counts.items() for i in range(n)]
    return ClipSet("some", tuple(map(str, counts)), tuple(records), (ClipRecord("t", Path("t"), 0, "test"),), False, "")


def test_a_share_of_the_clips_is_drawn_class_by_class():
    whole = clips({0: 40, 1: 10, 2: 1})
    tenth, fifth = whole.share(0.1, seed=3), whole.share(0.2, seed=3)
    assert [sum(r.label == label for r in tenth.train) for label in range(3)] == [4, 1, 1]
    assert [sum(r.label == label for r in fifth.train) for label in range(3)] == [8, 2, 1]
    assert set(tenth.train) < set(fifth.train) < set(whole.train)
    assert tenth.train != whole.share(0.1, seed=4).train
    assert tenth.test == whole.test
    assert whole.share(1.0, seed=3).train == whole.train


def test_a_cell_with_a_share_trains_on_it(shapes):
    ref, root = shapes
    assert len(models.load_clips(cell(ref), root).train) == 16
    assert len(models.load_clips(cell(ref, train_fraction=0.5), root).train) == 8
