"""The modules that MOSS is compared with: their parts against loops, and what they can see."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchctl.layers.motion_modules import Alternative, AlternativeShape, LocalAttention, alternative, differences, neighbours

SHAPE = AlternativeShape(width=6, out_width=5, inner=8, window=(3, 3, 5), channels=16, conv_blocks=2)
KINDS: list[Alternative] = ["r2plus1d", "factorised-attention", "local-attention", "difference", "selfy", "atm"]


def made(kind: Alternative, shape: AlternativeShape = SHAPE) -> nn.Module:
    torch.manual_seed(0)
    module = alternative(kind, shape, "sdpa")
    assert module is not None
    return module.double().eval()


def features(*size: int) -> Tensor:
    return torch.randn(*(size or (1, 4, 5, 6)), SHAPE.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_none_is_nothing() -> None:
    assert alternative("none", SHAPE, "sdpa") is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [(3, 3, 5), (5, 9, 9), (1, 1, 1), (3, 3, 1)])
def test_shapes_and_gradients(kind: Alternative, window: tuple[int, int, int]) -> None:
    module = made(kind, replace(SHAPE, window=window)).train()
    given = module(features(2, 3, 4, 5))
    assert given.shape == (2, 3, 4, 5, SHAPE.out_width)
    given.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_position_sees(kind: Alternative) -> None:
    """Which frames change a frame's output: all with attention over time, the next ones with the others."""
    module = made(kind)
    changed = features()
    changed[:, 3] = features()[:, 2]
    with torch.no_grad():
        moved = (module(changed) - module(features())).abs().amax(dim=(0, 2, 3, 4)) > 1e-9
    assert moved.tolist() == ([True] * 4 if kind == "factorised-attention" else [False, False, True, True])


def test_neighbours_are_those_in_the_window() -> None:
    sides, window = (2, 3, 4), (1, 3, 5)
    positions = list(itertools.product(*map(range, sides)))
    expected = [[all(abs(p - q) <= side // 2 for p, q, side in zip(a, b, window)) for b in positions] for a in positions]
    assert neighbours(sides, window, torch.device("cpu")).tolist() == expected


@pytest.mark.parametrize("backend", ["sdpa", "eager", "math"])
def test_local_attention_is_a_softmax_over_neighbours(backend: str) -> None:
    torch.manual_seed(0)
    module = LocalAttention(SHAPE, backend).double().eval()  # type: ignore[arg-type]
    x = features(1, 2, 3, 3)
    with torch.no_grad():
        tokens = module.into(x).flatten(1, 3)[0]
        normal, inside = module.attention.norm(tokens), module.attention.attention
        query, (key, value) = inside.query(normal), inside.key_value(normal).chunk(2, dim=-1)
        near = neighbours((2, 3, 3), SHAPE.window, x.device)
        rows = []
        for i in range(len(tokens)):
            seen = [j for j in range(len(tokens)) if near[i, j]]
            weights = torch.stack([query[i] @ key[j] / SHAPE.inner**0.5 for j in seen]).softmax(0)
            rows.append(sum(weight * value[j] for weight, j in zip(weights, seen, strict=True)))
        expected = module.out(tokens + inside.out(torch.stack(rows)))
        torch.testing.assert_close(module(x).flatten(1, 3)[0], expected)


def test_differences_are_differences() -> None:
    x = features()
    found = differences(x, reach=2)
    for t, lag in itertools.product(range(4), range(-2, 3)):
        expected = x[:, t + lag] - x[:, t] if 0 <= t + lag < 4 else torch.zeros_like(x[:, t])
        torch.testing.assert_close(found[:, t, :, :, lag + 2], expected)
