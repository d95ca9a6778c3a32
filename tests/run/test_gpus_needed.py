"""How many GPUs hold a step, with a predictor that knows a simple law."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from benchctl.budget import Budget
from benchctl.cli.plan import app
from benchctl.errors import UsageError
from benchctl.launch import Launch
from benchctl.methods import timesformer
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Measurement, Outcome
from benchctl.run.gpus_needed import LEFT_BYTES, MOST_GPUS, gpus_needed
from benchctl.run.predictions import Predicted
from benchctl.spec import Cell
from benchctl.vocabulary import ClipShape

GIB = 2**30


def training(batch_size: int, **changes: object) -> Cell:
    config = timesformer.Config.model_validate(timesformer.PRESETS["timesformer-tiny"]).model_dump(mode="json")
    fields = {"task": "train", "method": "timesformer-tiny", "config": config, "precision": "fp32", "attention": "sdpa", "num_classes": 8}
    fields |= {"pretrained": False, "pad": False, "seed": 0, "recipe": Recipe(), "budget": Budget(match_on="steps", amount=10)}
    fields |= {"shape": ClipShape(frames=8, resolution=224, batch_size=batch_size)}
    return Cell.model_validate({**fields, **changes})


def predicts(weights: int, each_clip: int, asked: list[int]):
    """`weights` on each GPU, or a part of them at stage 3, and `each_clip` for each clip of a pass, in bytes."""

    def one(cell: Cell) -> Predicted:
        assert cell.launch is not None
        assert cell.memory_cap_bytes is not None
        asked.append(cell.launch.gpus)
        held = weights // cell.launch.ranks if cell.launch.divides else weights
        needs = held + each_clip * cell.launch.micro_batches(cell.shape.batch_size)[0]
        value = Measurement(metric="peak_memory_bytes", value=needs, kind="reserved", source="predicted", device="cuda")
        outcome = Outcome.OK if needs <= cell.memory_cap_bytes else Outcome.OOM
        reason = None if outcome is Outcome.OK else "needs more"
        return Predicted(cell, CellResult(cell_id=cell.id, outcome=outcome, reason=reason, measurements=(value,), started_at="", seconds=0))

    return lambda cells: [one(cell) for cell in cells]


@pytest.mark.parametrize("batch_size", [1, 6, 16, 64])
@pytest.mark.parametrize("gib", [3, 6, 11, 21, 200])
def test_the_fewest_that_hold_it_are_found(batch_size: int, gib: int):
    asked: list[int] = []
    (need,) = gpus_needed([training(batch_size)], gib * GIB, predicts(2 * GIB, GIB, asked))
    possible = [n for n in (1, 2, 4, 8, 16, 32, 64) if batch_size % n == 0 and 2 + batch_size // n <= gib - LEFT_BYTES / GIB]
    assert (need.at_once and need.at_once.launch.gpus) == (possible[0] if possible else None)
    if need.at_once:
        assert need.at_once.clips * need.at_once.launch.gpus == batch_size
        assert need.at_once.reserved_bytes == (2 + need.at_once.clips) * GIB
    assert (need.one_by_one and need.one_by_one.clips) == (1 if gib > 3 else None)
    # halved, not tried one after the other
    assert len(asked) <= 2 * 4


def test_divided_weights_need_more_gpus_and_less_of_each():
    cell = training(64, launch=Launch(engine="deepspeed", zero=3, gpus=4))
    (need,) = gpus_needed([cell], 5 * GIB, predicts(12 * GIB, GIB, []))
    assert need.one_by_one is not None
    assert need.one_by_one.launch.gpus == 4
    assert need.at_once is not None
    assert need.at_once.launch.gpus == 32
    assert need.at_once.launch.engine == "deepspeed"


def test_seeds_and_budgets_are_one_training_and_profiles_are_none():
    cells = [training(4), training(4, seed=1), training(4, budget=Budget(match_on="steps", amount=20)), training(8)]
    cells.append(training(4, task="profile", budget=None))
    assert [need.cell.shape.batch_size for need in gpus_needed(cells, 80 * GIB, predicts(GIB, GIB, []))] == [4, 8]


def test_what_cannot_be_predicted_has_its_reason():
    def fails(cells):
        return [Predicted(c, CellResult(cell_id=c.id, outcome=Outcome.FAILED, reason="no trace", started_at="", seconds=0)) for c in cells]

    (need,) = gpus_needed([training(4)], 80 * GIB, fails)
    assert (need.at_once, need.one_by_one, need.reason) == (None, None, "no trace")


SUITE = """
name: two
task: train
methods: timesformer-tiny
sweep:
  - {frames: 4, resolution: 32, batch_size: 1}
dataset: motion_shapes
budget: {match_on: steps, amount: 5}
seeds: [0, 1]
"""


@pytest.mark.slow
def test_the_plan_tells_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(SUITE)
    told = CliRunner().invoke(app, ["plan", "two.yaml", "--gpu-memory", "16", "--json"])
    assert told.exit_code == 0, told.output
    (row,) = json.loads(told.stdout)["gpus_needed"]
    assert row["at_once"]["gpus"] == 1
    assert row["at_once"]["clips_per_pass"] == 1
    assert 0 < row["one_by_one"]["predicted_reserved_bytes"] <= row["at_once"]["predicted_reserved_bytes"] < GIB
    shown = CliRunner().invoke(app, ["plan", "two.yaml", "--gpu-memory", "16"])
    assert "GPUs of 16 GiB that hold a training step" in shown.stdout
    assert f"over {MOST_GPUS}" not in shown.stdout
    refused = CliRunner().invoke(app, ["plan", "two.yaml", "--gpu-memory", "16", "--no-predict"])
    assert isinstance(refused.exception, UsageError)
