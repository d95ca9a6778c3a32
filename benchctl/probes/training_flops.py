"""Floating-point operations of one training step, forward and backward, without running it.

Matrix products and convolutions, a multiplication and an addition as two, as torch's `FlopCounterMode` counts them, attention by its
explicit formula. What costs no backward pass (frozen parts in front of everything that learns, gradients of weights that do not learn)
is not in it, since nothing of it is executed. The optimizer has no products. Two counts:

    executed     all that is executed, what activation checkpointing computes a second time included
    algorithmic  without the second time: what the same step takes where memory is no concern

torch counts the gradient of a grouped convolution's weights as if it had one group, which for a depthwise convolution is too much by
the number of channels; here each gradient of a convolution costs what its forward pass costs, as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from benchctl.errors import TraceFailed
from benchctl.probes.hollow import Hollow

aten: Any = torch.ops.aten

BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Learner(Protocol, Generic[BatchT_contra]):
    """What is counted: `benchctl.engine.step.TrainingStep` is one."""

    def start(self) -> None:
        """Put the model into training mode."""

    def forward(self, batch: BatchT_contra) -> torch.Tensor:
        """The loss."""

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients."""


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one step of the batch that was counted."""

    forward: int
    executed: int
    algorithmic: int


def count(make: Callable[[], Learner[Any]], batch: Any) -> StepFlops:
    """Count one step of what `make` gives. Nothing of size is computed: see `benchctl.probes.hollow`.

    Args:
        make: a training step around a model on the CPU, from `empty_build` or real.
        batch: inputs and labels on the CPU; their values do not matter.

    Raises:
        TraceFailed: the step cannot be traced, or there is nothing in it to count.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter: Any = FlopCounterMode(display=False, custom_mapping={aten.convolution_backward: _convolution_backward})
    learner = make()
    learner.start()
    try:
        with sdpa_kernel(SDPBackend.MATH), Hollow(), counter:
            loss = learner.forward(batch)
            forward = int(counter.get_total_flops())
            with _second_time(counter) as recomputed:
                learner.backward(loss)
    except TraceFailed:
        raise
    except Exception as error:
        detail = (str(error).strip().splitlines() or [""])[0][:300]
        raise TraceFailed(f"a training step cannot be counted: {type(error).__name__}: {detail}") from error
    executed = int(counter.get_total_flops())
    if executed == 0:
        raise TraceFailed("a training step without any matrix product or convolution cannot be counted")
    return StepFlops(forward, executed, executed - recomputed[0])


@contextmanager
def _second_time(counter: Any) -> Iterator[list[int]]:
    """The FLOPs of modules that are called while gradients are computed, which is what activation checkpointing does: one number."""
    found, depth, before = [0], [0], [0]

    def enter(_module: nn.Module, _inputs: Any) -> None:
        if depth[0] == 0:
            before[0] = int(counter.get_total_flops())
        depth[0] += 1

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        depth[0] -= 1
        if depth[0] == 0:
            found[0] += int(counter.get_total_flops()) - before[0]

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        # always: recomputation ends with an exception as soon as it has what it needs
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _convolution_backward(
    grad_out_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: Any,
    output_mask: Sequence[bool],
    out_shape: Any = None,  # noqa: ARG001  (the counter names it)
) -> int:
    """Each gradient takes every product of the forward pass once: pixels, of what is larger than the kernel, times weights."""
    pixels = (x_shape if transposed else grad_out_shape)[2:]
    return 2 * x_shape[0] * prod(pixels) * prod(w_shape) * sum(bool(wanted) for wanted in output_mask[:2])
