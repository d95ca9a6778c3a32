"""One training step: forward, loss, backward, optimizer. Training, memory measurement and memory prediction all run this code."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.recipe import Recipe
from benchctl.spec import Objective, Precision

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
    """A model with its optimizer, in one process. `forward`, `backward` and `update` in turn are one step.

    Engines of several processes are subclasses: `benchctl.engine.data_parallel`, `benchctl.engine.deepspeed`.
    """

    #: whether all ranks must make a forward pass for one of them to make it
    forward_together = False

    def __init__(self, model: nn.Module, recipe: Recipe, precision: Precision, objective: Objective = "classes") -> None:
        """Make the optimizer.

        Args:
            model: moved to its device already; for `reconstruction` it answers with its loss.
            recipe: optimizer, clipping and label smoothing.
            precision: fp16 scales its loss, so that small gradients survive.
            objective: what is learned.
        """
        self.model = model
        #: what a forward pass calls: engines of several processes put something around the model
        self.called: nn.Module = model
        self.recipe = recipe
        self.objective: Objective = objective
        self.precision: Precision = precision
        self.device = next(model.parameters()).device
        self.device_type = self.device.type
        self.optimizer = make_optimizer(model, recipe, self.device_type)
        self.scaler = torch.amp.GradScaler(self.device_type) if precision == "fp16" else None

    @property
    def judged(self) -> nn.Module:
        """What is called to judge the model as it is."""
        return self.model

    def forward(self, batch: Batch) -> Tensor:
        """Mean loss of the batch, in fp32: cross-entropy of classes, squared error of values, or the model's own."""
        inputs, labels = batch
        with autocast(self.precision, self.device_type):
            answer: Tensor = self.called(*inputs)
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

    def learn(self, micro_batches: Sequence[Batch]) -> Tensor:
        """Forward and backward of all of them, and one update; their mean loss, as (), without its graph."""
        losses = []
        for micro_batch in micro_batches:
            loss = self.forward(micro_batch)
            self.backward(loss / len(micro_batches) if len(micro_batches) > 1 else loss)
            losses.append(loss.detach())
        self.update()
        return torch.stack(losses).mean()

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

    def weights(self) -> dict[str, Tensor]:
        """The whole model's state, by name. All ranks must call it; what the others get is not said."""
        return self.model.state_dict()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on but random numbers, by names that no engine and no number of ranks changes.

        All ranks must call it; what the others than the first get is not said.
        """
        state = self.optimizer.state
        kept = {name: dict(state[p]) for name, p in self.model.named_parameters() if p in state}
        return {"model": self.weights(), "optimizer": kept, "scaler": self.scaler.state_dict() if self.scaler else None}

    def restore(self, content: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.model.load_state_dict(content["model"])
        for name, parameter in self.model.named_parameters():
            if name in content["optimizer"]:
                kept = content["optimizer"][name]
                self.optimizer.state[parameter] = {key: _beside(value, parameter, key) for key, value in kept.items()}
        if self.scaler and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])

    def close(self) -> None:
        """Let go of what is shared with other processes."""


def _beside(value: Any, parameter: Tensor, key: str) -> Any:
    """Optimizer state where its parameter is; the number of its steps stays on the CPU, as torch's optimizers have it."""
    if not torch.is_tensor(value) or key == "step":
        return value
    return value.to(parameter.device)
