"""Several processes with torch alone: every rank has the whole model, and gradients are averaged (DistributedDataParallel)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchctl.engine.step import Batch, TrainingStep
from benchctl.recipe import Recipe
from benchctl.spec import Objective, Precision


class DataParallelStep(TrainingStep):
    """One rank's part of a step: its share of the batch, and the update that all ranks make alike."""

    def __init__(self, model: nn.Module, recipe: Recipe, precision: Precision, objective: Objective = "classes") -> None:
        super().__init__(model, recipe, precision, objective)
        # gradients lie in the buckets that are sent: one copy of them, not two. Some methods leave weights unused in a step
        self._parallel = DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device_type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=True,
        )
        self.called = self._parallel

    def learn(self, micro_batches: Sequence[Batch]) -> Tensor:
        """As one process; gradients are sent once, with the last micro-batch."""
        losses = []
        for index, micro_batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with nullcontext() if last else self._parallel.no_sync():
                loss = self.forward(micro_batch)
                self.backward(loss / len(micro_batches) if len(micro_batches) > 1 else loss)
            losses.append(loss.detach())
        self.update()
        return torch.stack(losses).mean()
