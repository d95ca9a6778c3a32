"""What is noted beside a cell's numbers."""

from __future__ import annotations

import pytest
import torch
from training_cells import cell

from benchctl.engine import checkpoint, models
from benchctl.pretrained_on import declared


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_what_weights_bring_along_is_noted(shapes, task: str):
    random = cell(shapes[0], task=task)
    model = models.build(random)
    assert models.notes(random, model)["pretraining"] == "none"
    loaded = random.model_copy(
        update={"pretrained": True, "config": {**random.config, "weights": "MCG-NJU/videomae-base-finetuned-kinetics"}}
    )
    note = models.notes(loaded, model)["pretraining"]
    assert note == declared(models.model_spec(loaded).config)
    assert note == {"data": "Kinetics-400 without labels, then Kinetics-400", "gpu_hours": "unknown"}


def test_a_profile_learns_nothing(shapes):
    profiled = cell(shapes[0]).model_copy(update={"task": "profile"})
    assert "pretraining" not in models.notes(profiled, models.build(profiled))


def test_a_digest_tells_weights_apart(shapes):
    first, same, other = (models.build(cell(shapes[0], seed=seed)) for seed in (0, 0, 1))
    assert checkpoint.digest(first) == checkpoint.digest(same) != checkpoint.digest(other)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-6
    assert checkpoint.digest(first) != checkpoint.digest(same)
    # half precision has no form in NumPy
    assert len(checkpoint.digest(first.to(torch.bfloat16))) == 64
