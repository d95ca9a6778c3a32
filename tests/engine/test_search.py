"""A search of recipes inside the budget of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_cells import StopAfter, cell, run

from benchctl.budget import Budget
from benchctl.engine import checkpoint, search
from benchctl.engine.train import Ending, Progress
from benchctl.errors import BenchctlError
from benchctl.record import Outcome
from benchctl.spec import Search

TWO = Search(learning_rate=(1e-3, 1e-5), share=0.4, held_out=0.5)


def trial_scores(result) -> dict[str, float | None]:
    return {m.kind: m.value for m in result.measurements if m.metric == "trial_top1"}


def test_trials_and_training_share_one_budget(shapes, tmp_path: Path):
    ref, root = shapes
    result = run(cell(ref, budget=Budget(match_on="steps", amount=20), search=TWO), root, tmp_path)
    assert result.outcome is Outcome.OK, result.reason
    assert result.value("steps") == result.value("planned_steps") == 20
    assert result.value("budget_used") == 1
    assert set(trial_scores(result)) == {"learning_rate=0.001", "learning_rate=1e-05"}
    best = max(trial_scores(result).items(), key=lambda each: each[1])[0]
    assert result.notes["searched"] == f"{best}, the best of 2 trials, which had 40 % of the budget"
    # 4 steps each, so that nothing was trained yet at a quarter of the budget
    kept = checkpoint.load(Path(result.checkpoint))
    assert kept["step"] == 20
    assert len(kept["record"]["losses"]) == 12
    assert [j["share"] for j in kept["record"]["judged"]] == [0.5, 0.75]
    assert not list(tmp_path.glob("trial-*"))


def test_stopped_anywhere_it_ends_with_the_same_bytes(shapes, tmp_path: Path):
    ref, root = shapes
    whole = cell(ref, budget=Budget(match_on="steps", amount=20), search=TWO)
    expected = checkpoint.load(Path(run(whole, root, tmp_path / "whole").checkpoint))["model"]
    for looks in (2, 6, 13):
        folder = tmp_path / str(looks)
        stopped = run(whole, root, folder, StopAfter(looks))
        assert stopped.outcome is Outcome.INTERRUPTED
        found = checkpoint.load(Path(run(whole, root, folder).checkpoint))["model"]
        assert all(found[name].equal(value) for name, value in expected.items())


def test_a_clock_is_shared_too(shapes, tmp_path: Path):
    ref, root = shapes
    result = run(cell(ref, budget=Budget(match_on="wall_seconds", amount=1.5), search=TWO), root, tmp_path)
    assert result.outcome is Outcome.OK
    assert result.value("train_seconds") == pytest.approx(1.5, rel=0.5)
    assert result.value("budget_used") >= 1


def test_no_clip_to_judge_by(shapes, tmp_path: Path):
    ref, root = shapes
    with pytest.raises(BenchctlError, match="holding out 10 % of 16 training clips, class by class, leaves none"):
        run(cell(ref, search=TWO.model_copy(update={"held_out": 0.1})), root, tmp_path)


def tried(outcome: Outcome, top1: float | None, reason: str | None = None) -> search.Tried:
    return search.Tried(Ending(outcome, reason, Progress(), None), top1)


def test_the_best_is_the_first_of_equal_ones():
    ok = Outcome.OK
    found = search.Searched([({"learning_rate": rate}, tried(ok, top1)) for rate, top1 in ((1.0, 0.2), (2.0, 0.5), (3.0, 0.5))])
    assert found.best == {"learning_rate": 2.0}
    assert found.stopped is None


def test_a_trial_that_diverges_is_not_the_best():
    diverged = tried(Outcome.DIVERGED, None, "the loss became nan at step 3 of 9")
    found = search.Searched([({"learning_rate": 9.0}, diverged), ({"learning_rate": 1.0}, tried(Outcome.OK, 0.0))])
    assert found.best == {"learning_rate": 1.0}
    values = {m.kind: (m.value, m.reason) for m in found.measurements("cpu")}
    assert values["learning_rate=9"] == (None, "the loss became nan at step 3 of 9")
    with pytest.raises(BenchctlError, match="no trial of the search came to its end: the loss became nan"):
        search.Searched(found.trials[:1]).best  # noqa: B018
