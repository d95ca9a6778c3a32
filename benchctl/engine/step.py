"""One training step: forward, loss, backward, optimizer. Training, memory measurement and memory prediction all run this code."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.spec import Objective, Precision, Recipe

#: what the model is given, as `benchctl.data.loading.Batch` has it, and labels (B,), their shares (B, classes) or values (B, K)
Batch = tuple[tuple[Tensor, ...], Tensor]

#: of AdamW where the recipe names none
BETAS = (0.9, 0.999)
#: what is left of the learning rate after each drop of the schedule `steps`
DROP = 0.1

AUTOCAST: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def autocast(precision: Precision, device_type: str) -> contextlib.AbstractContextManager[None]:
    """The context that a forward pass of `precision` runs in. Weights stay fp32; fp16 and bf16 are autocast."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=AUTOCAST[precision])


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices decay, biases and normalisation weights (one dimension or none) do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, recipe: Recipe, device_type: str) -> torch.optim.Optimizer:
    """The recipe's optimizer. Off the CPU the multi-tensor kernels are asked for by name: their temporaries are part of the peak."""
    groups: Iterable[dict[str, object]] = parameter_groups(model, recipe.weight_decay)
    foreach = device_type != "cpu"
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas or BETAS, foreach=foreach)
    nesterov = recipe.optimizer == "nesterov"
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, foreach=foreach)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of `step` (from 0) out of `steps`: linear warm-up, then cosine to 0, constant, or in steps."""
    warmup = round(recipe.warmup_fraction * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return _scheduled(step / steps, (step - warmup) / max(1, steps - warmup), recipe)


def learning_rate_at(share: float, recipe: Recipe) -> float:
    """Learning rate after `share` (0 to 1) of a training whose number of steps nobody knows, since a clock ends it."""
    if share < recipe.warmup_fraction:
        # not 0: the first step would be none
        return recipe.learning_rate * max(share / recipe.warmup_fraction, 1e-3)
    return _scheduled(share, (share - recipe.warmup_fraction) / (1 - recipe.warmup_fraction), recipe)


def _scheduled(share: float, progress: float, recipe: Recipe) -> float:
    """After the warm-up; `share` of the whole training, and `progress` since the warm-up, are from 0 to 1."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "steps":
        return recipe.learning_rate * DROP ** sum(share >= drop for drop in recipe.drop_at or ())
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class TrainingStep:
    """A model with its optimizer. `forward`, `backward` and `update` in turn are one step."""

    def __init__(self, model: nn.Module, recipe: Recipe, precision: Precision, objective: Objective = "classes") -> None:
        """Make the optimizer.

        Args:
            model: moved to its device already; for `reconstruction` it answers with its loss.
            recipe: optimizer, clipping and label smoothing.
            precision: fp16 scales its loss, so that small gradients survive.
            objective: what is learned.
        """
        self.model = model
        self.recipe = recipe
        self.objective: Objective = objective
        self.precision: Precision = precision
        self.device = next(model.parameters()).device
        self.device_type = self.device.type
        self.optimizer = make_optimizer(model, recipe, self.device_type)
        self.scaler = torch.amp.GradScaler(self.device_type) if precision == "fp16" else None

    def forward(self, batch: Batch) -> Tensor:
        """Mean loss of the batch, in fp32: cross-entropy of classes, squared error of values, or the model's own."""
        inputs, labels = batch
        with autocast(self.precision, self.device_type):
            answer: Tensor = self.model(*inputs)
        if self.objective == "reconstruction":
            return answer.float()
        if self.objective == "values":
            return F.mse_loss(answer.float(), labels)
        return F.cross_entropy(answer.float(), labels, label_smoothing=self.recipe.label_smoothing)

    def start(self) -> None:
        """Put the model into training mode. What is frozen whole stays as it is: its statistics, and what it drops."""
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()

    def backward(self, loss: Tensor) -> None:
        """Gradients of all trainable parameters."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def update(self) -> None:
        """Clip, step, and drop the gradients."""
        if self.recipe.clip_gradient_norm is not None:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            trainable = [p for p in self.model.parameters() if p.requires_grad]
            nn.utils.clip_grad_norm_(trainable, self.recipe.clip_gradient_norm, foreach=self.device_type != "cpu")
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_learning_rate(self, rate: float) -> None:
        """For the next `update`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
