"""Training on real mp4 files: budgets, resuming, checkpoints, unreadable clips."""

from __future__ import annotations

import itertools
import random
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from training_cells import STEPS, StopAfter, cell, run

from benchctl.budget import Budget
from benchctl.engine import checkpoint, learning, models, profile
from benchctl.errors import BenchctlError, DeviceMissing
from benchctl.recipe import Recipe
from benchctl.record import Outcome, correctness


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
    assert (
        again.notes["weights_sha256"]
        == run(cell(ref, task="evaluate"), root, tmp_path, checkpoint=Path(trained.checkpoint)).notes["weights_sha256"]
    )
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


@pytest.mark.parametrize("draw", range(3))
def test_stopped_at_a_random_step_gives_the_same_bytes(shapes, tmp_path: Path, draw: int):
    """Anywhere, also where it is just judged: parameters, buffers and the optimizer's state are bit for bit those of a whole training."""
    ref, root = shapes
    budget = Budget(match_on="samples", amount=28, evaluate_at=(0.3, 0.6, 1.0))
    whole = run(cell(ref, budget=budget), root, tmp_path / "whole")
    at = random.Random(draw).randrange(1, 7)
    assert run(cell(ref, budget=budget), root, tmp_path / "parts", StopAfter(at)).outcome is Outcome.INTERRUPTED
    finished = run(cell(ref, budget=budget), root, tmp_path / "parts")
    a, b = (checkpoint.load(Path(r.checkpoint)) for r in (whole, finished))
    assert a["step"] == b["step"] == 7
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    states = [c["optimizer"] for c in (a, b)]
    assert states[0]
    assert all(torch.equal(states[0][p][k], states[1][p][k]) for p in states[0] for k in ("exp_avg", "exp_avg_sq"))
    for kind in ("30%", "60%", ""):
        assert whole.value("top1", kind=kind) == finished.value("top1", kind=kind) is not None


def test_being_judged_on_the_way_changes_nothing(shapes, tmp_path: Path):
    ref, root = shapes
    finals = []
    for shares in ((1.0,), (0.2, 0.5, 0.9, 1.0)):
        budget = Budget(match_on="steps", amount=STEPS, evaluate_at=shares)
        result = run(cell(ref, budget=budget), root, tmp_path / str(len(shares)))
        assert {m.kind for m in result.measurements if m.metric == "top1"} == {f"{100 * s:g}%" for s in shares if s < 1} | {""}
        finals.append(checkpoint.load(Path(result.checkpoint))["model"])
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_what_was_used_is_recorded(shapes, tmp_path: Path):
    ref, root = shapes
    counted = profile.count_step(cell(ref))[0].value
    budget = Budget(match_on="train_gflops", amount=10.2 * counted / 1e9, target_top1=0.01)
    result = run(cell(ref, budget=budget), root, tmp_path)
    assert result.value("steps") == result.value("planned_steps") == 10
    assert result.value("train_flops", kind="executed") == 10 * counted
    assert result.value("train_flops", kind="50%") == 5 * counted
    assert result.value("budget_used") == pytest.approx(10 / 10.2)
    assert result.notes["stop_reason"] == f"train_gflops: the amount of {budget.amount:g} is used up"
    assert 0 <= result.value("stall_fraction") <= 1
    assert result.value("cpu_seconds") > 0
    reasons = {m.metric: m.reason for m in result.measurements if m.value is None}
    assert "CPU time is never normalised" in reasons["v100_gpu_seconds"]
    assert reasons["energy_joules"] == "trained on a CPU"
    right = correctness(result.notes["correct"])
    assert len(right) == 8
    assert sum(right) / 8 == result.value("top1")


def test_a_target_is_met_at_the_first_share_that_meets_it(shapes, tmp_path: Path):
    ref, root = shapes
    for target in (0.0001, 0.125, 1.0):
        budget = Budget(match_on="steps", amount=4, target_top1=target)
        result = run(cell(ref, budget=budget), root, tmp_path / str(target))
        scores = [result.value("top1", kind=kind) for kind in ("25%", "50%", "75%", "")]
        first = next((i + 1 for i, score in enumerate(scores) if score >= target), None)
        if first is None:
            reasons = {m.reason for m in result.measurements if m.metric.endswith("_to_target")}
            assert reasons == {f"{100 * target:g} % was not reached"}
        else:
            assert result.value("flops_to_target") == first * result.value("train_step_flops", kind="executed")


def test_a_clock_ends_it(shapes, tmp_path: Path):
    ref, root = shapes
    budget = Budget(match_on="wall_seconds", amount=1.0)
    result = run(cell(ref, budget=budget), root, tmp_path)
    assert result.outcome is Outcome.OK
    assert result.value("budget_used") >= 1
    assert result.value("train_seconds") == pytest.approx(result.value("budget_used"))
    assert result.value("steps") >= 1


def test_a_meter_ends_it(shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ref, root = shapes
    read = (1000.0 + 12.5 * number for number in itertools.count())
    # read before and after every step
    monkeypatch.setattr(learning, "_watched", lambda _: nullcontext(learning._Devices(meter=lambda: next(read))))
    result = run(cell(ref, budget=Budget(match_on="energy_j", amount=250)), root, tmp_path)
    assert result.outcome is Outcome.OK, result.reason
    assert result.value("steps") == result.value("planned_steps") == 20
    assert result.notes["stop_reason"] == "energy_j: the amount of 250 is used up"


def test_what_a_cpu_cannot_be_budgeted_by(shapes, tmp_path: Path):
    ref, root = shapes
    for name in ("v100_gpu_hours", "energy_j"):
        with pytest.raises(DeviceMissing, match="match on train_gflops"):
            run(cell(ref, budget=Budget(match_on=name, amount=1)), root, tmp_path)


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
