"""Which engine makes the steps of a cell."""

from __future__ import annotations

from torch import nn

from benchctl.engine.data_parallel import DataParallelStep
from benchctl.engine.ranks import Ranks
from benchctl.engine.step import TrainingStep
from benchctl.recipe import Recipe
from benchctl.spec import Cell


def make_engine(cell: Cell, model: nn.Module, recipe: Recipe, ranks: Ranks, micro_batch: int) -> TrainingStep:
    """The engine that the cell's launch names, around `model`, which lies on its device.

    Args:
        cell: what is trained.
        model: its model.
        recipe: how it is trained.
        ranks: this process among those that train it, who have joined.
        micro_batch: clips of one forward pass of one rank.
    """
    launch = cell.launch
    if launch is not None and launch.engine == "deepspeed":
        # not at the top: it takes seconds, and most trainings do without it
        from benchctl.engine.deepspeed import DeepSpeedStep

        return DeepSpeedStep(
            model, recipe, cell.precision, cell.objective, launch=launch, batch_size=cell.shape.batch_size, micro_batch=micro_batch
        )
    made = TrainingStep if ranks.alone else DataParallelStep
    return made(model, recipe, cell.precision, cell.objective)
