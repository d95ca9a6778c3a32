"""Cells that train a small model on a small generated data set, and running them here."""

from __future__ import annotations

import threading
from pathlib import Path

from benchctl.budget import Budget
from benchctl.engine import work
from benchctl.recipe import Recipe
from benchctl.record import CellResult
from benchctl.spec import Cell, DatasetRef
from benchctl.vocabulary import ClipShape

SMALL = {"train_clips_per_class": 2, "test_clips_per_class": 1}
STEPS = 6


def cell(ref: DatasetRef, *, task: str = "train", **changes: object) -> Cell:
    from benchctl.methods import videomae

    recipe = Recipe(learning_rate=1e-3, eval_clips=2)
    fields: dict[str, object] = {
        "task": task,
        "method": "videomae-tiny",
        "config": videomae.Config.model_validate(videomae.PRESETS["videomae-tiny"]).model_dump(mode="json"),
        "shape": ClipShape(frames=4, resolution=32, batch_size=4),
        "precision": "fp32",
        "attention": "sdpa",
        "pretrained": False,
        "pad": False,
        "num_classes": 8,
        "seed": 0,
        "recipe": recipe,
        "dataset": ref,
        "budget": Budget(match_on="steps", amount=STEPS) if task == "train" else None,
    }
    return Cell.model_validate({**fields, **changes})


class StopAfter:
    """Asks to stop at the n-th look."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def run(cell: Cell, root: Path, folder: Path, stop: object = None, **more: object) -> CellResult:
    settings = work.WorkSettings(device="cpu", data_root=root, checkpoint_folder=folder, **more)
    return work.execute(cell, settings, stop or threading.Event())
