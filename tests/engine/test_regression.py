"""Learning numbers instead of classes: from a manifest's columns to correlation and error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_cells import cell, run

from benchctl.budget import Budget
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.encode import write_mp4
from benchctl.data.loading import UnreadableLog
from benchctl.engine.evaluate import Evaluation, _judged_together
from benchctl.recipe import Recipe
from benchctl.record import Outcome
from benchctl.spec import DatasetRef
from benchctl.vocabulary import ClipShape

TARGETS = ("brightness", "inverse")


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 videos of one grey each, and how bright it is: 32 to train and 16 to test on."""
    folder = tmp_path_factory.mktemp("bright")
    rng = np.random.default_rng(0)
    lines = ["path,split,brightness,inverse"]
    for i in range(48):
        grey = int(rng.integers(30, 220))
        frames = np.clip(grey + rng.normal(0, 8, (4, 32, 32, 3)), 0, 255).astype(np.uint8)
        write_mp4(folder / f"{i}.mp4", frames, fps=8)
        lines.append(f"{i}.mp4,{'train' if i < 32 else 'test'},{grey},{1000 - 5 * grey}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_brightness_is_learned(bright: Path, tmp_path: Path):
    asked = cell(
        DatasetRef(name="manifest", options={"targets": list(TARGETS)}),
        targets=TARGETS,
        num_classes=2,
        recipe=Recipe(learning_rate=1e-3, eval_clips=1),
        shape=ClipShape(frames=4, resolution=32, batch_size=8),
        budget=Budget(match_on="steps", amount=60),
    )
    assert asked.objective == "values"
    result = run(asked, bright, tmp_path)
    assert result.outcome is Outcome.OK
    for target, unit in zip(TARGETS, (1, 5)):
        assert result.value("pearson_r", kind=target) > 0.8
        assert 0 < result.value("rmse", kind=target) < 40 * unit
    assert result.value("scaled_squared_error", kind="train") < 0.5
    with np.load(result.notes["scores"]) as kept:
        assert (kept["scores"].shape, kept["labels"].shape) == ((16, 2), (16, 2))
        said, true = kept["scores"][:, 0], kept["labels"][:, 0]
        assert np.corrcoef(said, true)[0, 1] == pytest.approx(result.value("pearson_r", kind="brightness"))
        assert np.sqrt(((said - true) ** 2).mean()) == pytest.approx(result.value("rmse", kind="brightness"))


def records(videos: list[str], values: list[float] | None = None) -> list[ClipRecord]:
    given = values or [0.0] * len(videos)
    return [ClipRecord(f"{i}", Path(f"{i}"), 0, "test", (v,), video) for i, (video, v) in enumerate(zip(videos, given))]


def test_clips_of_a_video_are_judged_by_their_mean():
    train = [ClipRecord("a", Path("a"), 0, "train", (0.0,)), ClipRecord("b", Path("b"), 0, "train", (2.0,))]
    test = records(["x", "y", "x", ""], [5.0, 7.0, 5.0, 9.0])
    clips = ClipSet("some", (), tuple(train), tuple(test), False, "", targets=("t",))
    # mean 1 and deviation 1 over the training clips
    found = _judged_together(test, torch.tensor([[1.0], [2.0], [3.0], [4.0]]).double(), clips, UnreadableLog())
    assert found.ids == ("x", "y", "3")
    assert found.scores[:, 0].tolist() == [3.0, 3.0, 5.0]
    assert found.labels[:, 0].tolist() == [5.0, 7.0, 9.0]
    counts = {m.kind: m.value for m in found.measurements("cpu") if m.metric == "clips"}
    assert counts == {"test": 4, "videos": 3}


def test_clips_of_a_video_share_their_softmax():
    test = records(["x", "x"])
    clips = ClipSet("some", ("c0", "c1"), (), tuple(test), False, "")
    found = _judged_together(test, torch.tensor([[0.2, 0.8], [0.9, 0.1]]).double(), clips, UnreadableLog())
    assert found.scores.tolist() == [pytest.approx([0.55, 0.45])]
    assert found.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("said", "true", "reason"),
    [
        ([1.0, 1.0], [1.0, 2.0], "predictions are the same for all test clips"),
        ([1.0, 2.0], [3.0, 3.0], "values are the same for all test clips"),
        ([1.0, float("nan")], [1.0, 2.0], "the model answers with what is no finite number"),
    ],
)
def test_what_has_no_correlation_has_a_reason(said: list[float], true: list[float], reason: str):
    evaluation = Evaluation(torch.tensor(said).double()[:, None], torch.tensor(true).double()[:, None], ("a", "b"), targets=("t",), clips=2)
    (found,) = (m for m in evaluation.measurements("cpu") if m.metric == "pearson_r")
    assert (found.value, found.reason) == (None, reason)
