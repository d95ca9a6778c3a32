"""FLOPs of a training step against counts by hand, and against a real step of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchctl.errors import TraceFailed
from benchctl.probes import training_flops
from benchctl.probes.training_flops import StepFlops


class Learner:
    """A model, the sum of its outputs as the loss."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def start(self) -> None:
        self.model.train()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch).sum()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


def count(model: nn.Module, *shape: int) -> StepFlops:
    return training_flops.count(lambda: Learner(model), torch.zeros(shape))


def test_two_layers():
    """(B, I) x (I, H) and (B, H) x (H, O): the first has no gradient of its input to compute."""
    B, I, H, O = 3, 5, 7, 11  # noqa: E741
    found = count(nn.Sequential(nn.Linear(I, H), nn.ReLU(), nn.Linear(H, O)), B, I)
    forward = 2 * B * (I * H + H * O)
    assert found == StepFlops(forward, forward + 2 * B * (I * H) + 2 * 2 * B * (H * O), forward + 2 * B * (I * H) + 4 * B * H * O)


def test_what_is_frozen_in_front_costs_no_backward():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 11))
    model[0].requires_grad_(False)
    found = count(model, 3, 5)
    assert found.executed == found.forward + 2 * 3 * 7 * 11  # the gradient of the second layer's weights


def test_what_is_frozen_behind_passes_the_gradient_on():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 11))
    model[1].requires_grad_(False)
    assert count(model, 3, 5).executed == 2 * 3 * (2 * 5 * 7 + 2 * 7 * 11)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_by_groups(groups: int):
    """Every weight meets every output pixel once forward, once for the input's gradient and once for its own."""
    first, second = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    found = count(nn.Sequential(first, second), 2, 4, 9, 9)
    products = [0, 0]
    for _ in range(2 * 9 * 9):
        products[0] += 4 * 4
    for _ in range(2 * 7 * 7):
        products[1] += 8 * (4 // groups) * 9
    assert found.forward == 2 * sum(products)
    # the clip itself needs no gradient
    assert found.executed == found.forward + 2 * (products[0] + 2 * products[1])


def test_a_transposed_convolution():
    found = count(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ConvTranspose2d(4, 5, 2, stride=2, bias=False)), 1, 3, 6, 6)
    one, two = 36 * 12, 36 * 4 * 5 * 4
    assert (found.forward, found.executed) == (2 * (one + two), 2 * (2 * one + 3 * two))


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_twice_is_executed_twice(reentrant: bool):
    def layers() -> tuple[nn.Module, nn.Module]:
        return nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6), nn.GELU())

    first, second = layers()
    plain = count(nn.Sequential(first, second), 4, 6)
    again = count(nn.Sequential(first, Checkpointed(second, reentrant=reentrant)), 4, 6)
    assert again.algorithmic == plain.executed == plain.algorithmic
    assert again.executed == plain.executed + 2 * 4 * (6 * 8 + 8 * 6)


def test_attention_is_counted_forward_and_backward():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 24, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.project(x).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v)

    found = count(Attention(), 2, 5, 8)
    projection, attention = 2 * (2 * 5) * 8 * 24, 2 * (2 * 2 * 5 * 5 * 4) * 2
    assert (found.forward, found.executed) == (projection + attention, 2 * projection + 3 * attention)


def test_nothing_to_count_is_said():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.by * x

    with pytest.raises(TraceFailed, match="without any matrix product"):
        count(Scale(), 2, 3)


def test_a_step_that_cannot_be_traced_is_said():
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such thing")

    with pytest.raises(TraceFailed, match="cannot be counted: RuntimeError: no such thing"):
        count(Broken(), 2, 3)
