"""Attention in windows against its definition: a loop over queries, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from benchctl.errors import ShapeError
from benchctl.layers.windowed_attention import OUTSIDE, WindowedAttention, WindowedShape, displacement_index, later


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(row: int, column: int, shape: WindowedShape) -> list[tuple[int, int]]:
    """Rows and columns of a query's window, place after place."""
    side = shape.side
    corner = (row - side // 2, column - side // 2) if shape.sliding else (row // side * side, column // side * side)
    return [(corner[0] + i, corner[1] + j) for i in range(side) for j in range(side)]


def bias_of(module: WindowedAttention, head: int, place: int, displacement: tuple[int, int]) -> Tensor:
    side = module.shape.side
    if module.shape.sliding:
        return module.bias[head, place]
    return module.bias[head].view(2 * side - 1, 2 * side - 1)[displacement[0] + side - 1, displacement[1] + side - 1]


def defined(module: WindowedAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    shape = module.shape
    inside = range(shape.grid)
    attended, scores = torch.zeros_like(query), query.new_zeros(*query.shape[:-1], shape.side**2)
    for b, t, n, x, y in itertools.product(*(range(size) for size in query.shape[:-1])):
        window = seen(x, y, shape)
        beyond = torch.full((shape.head_width,), OUTSIDE, dtype=torch.float64)
        keys, values = (
            torch.stack([of[b, t, n, i, j] if i in inside and j in inside else beyond for i, j in window]) for of in (key, value)
        )
        biases = torch.stack([bias_of(module, n, place, (i - x, j - y)) for place, (i, j) in enumerate(window)])
        score = keys @ query[b, t, n, x, y] / shape.head_width**0.5 + biases
        scores[b, t, n, x, y] = score
        attended[b, t, n, x, y] = score.softmax(0) @ values
    return attended, scores


@pytest.mark.parametrize("sliding", [True, False], ids=["sliding", "cut"])
@pytest.mark.parametrize(("grid", "side"), [(5, 3), (3, 3), (4, 5), (6, 3)])
def test_it_is_its_definition(sliding: bool, grid: int, side: int) -> None:
    """Also where windows do not divide the grid, and where one is larger."""
    module = WindowedAttention(WindowedShape(2, grid, heads=3, head_width=4, side=side, sliding=sliding)).double()
    inputs = [drawn(2, 2, 3, grid, grid, 4, seed=n).requires_grad_() for n in range(3)]
    weights = drawn(2, 2, 3, grid, grid, 4, seed=5), drawn(2, 2, 3, grid, grid, side**2, seed=6)
    results = []
    for function in (module, lambda *x: defined(module, *x)):
        for x in (*inputs, module.bias):
            x.grad = None
        found = function(*inputs)
        sum((x * w).sum() for x, w in zip(found, weights)).backward()
        results.append([*found, *(x.grad.clone() for x in (*inputs, module.bias))])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_what_a_window_asks_for() -> None:
    """Scores and sums: 2 x T x H x W x S^2 x C, whatever is executed."""
    for sliding in (True, False):
        module = WindowedAttention(WindowedShape(16, 14, heads=5, head_width=64, side=7, sliding=sliding))
        assert module.window_macs == 2 * 16 * 14 * 14 * 49 * 320


def test_displacements_are_those_of_the_window() -> None:
    index = displacement_index(3)
    assert index.diagonal().tolist() == [12] * 9
    assert index[0, 8] == 24  # from the first corner to the last: two down, two to the right
    assert index[8, 0] == 0
    assert sorted(set(index.flatten().tolist())) == list(range(25))


@pytest.mark.parametrize(("frames", "expected"), [(0, [0, 1, 2]), (1, [1, 2, 2]), (2, [2, 2, 2]), (3, [2, 2, 2])])
def test_the_last_frame_stands_for_those_after_it(frames: int, expected: list[int]) -> None:
    assert later(torch.arange(3)[None], frames).tolist() == [expected]


def test_half_precision_keeps_scores_and_softmax_in_fp32() -> None:
    for sliding in (True, False):
        module = WindowedAttention(WindowedShape(1, 4, heads=1, head_width=8, side=3, sliding=sliding))
        query, key, value = (drawn(1, 1, 1, 4, 4, 8, seed=n).float() for n in range(3))
        exact, _ = module(query, key, value)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attended, scores = module(query.bfloat16(), key.bfloat16(), value.bfloat16())
        assert scores.dtype == torch.float32
        torch.testing.assert_close(attended.float(), exact, atol=0.05, rtol=0.05)


def test_an_even_window_is_refused() -> None:
    with pytest.raises(ShapeError, match="side S is 4"):
        WindowedAttention(WindowedShape(1, 4, heads=1, head_width=8, side=4))
