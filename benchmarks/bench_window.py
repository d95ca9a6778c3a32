"""Attention in a window of the next frame against unfold-then-multiply: time and peak memory of a forward and backward pass, as ratios.

Scores, softmax and sums at stage 3 of UniFormer-S, without linear layers. Both run in turns in the same process, on one thread, so
that a busy machine slows both. Memory is the allocator's exact peak.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import compare
from torch import Tensor

from benchctl.layers.windowed_attention import OUTSIDE, WindowedAttention, WindowedShape

SHAPE = WindowedShape(frames=16, grid=14, heads=5, head_width=64, side=7)
#: what EMIM needs of it: as many times faster, and as small a share of the memory
FASTER, SHARE = 5.0, 0.25

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def unfolded(module: WindowedAttention) -> Attend:
    """The usual way: pad, gather every query's keys and values, multiply with the query, sum over channels."""
    reach = SHAPE.side // 2

    def neighbours(x: Tensor) -> Tensor:
        padded = F.pad(x.flatten(0, 2), (0, 0, reach, reach, reach, reach), value=OUTSIDE)
        around = padded.unfold(1, SHAPE.side, 1).unfold(2, SHAPE.side, 1).flatten(4)  # n, H, W, D, places
        return around.unflatten(0, x.shape[:3])

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query * SHAPE.head_width**-0.5).unsqueeze(-2) @ neighbours(key)
        weights = (scores.squeeze(-2) + module.bias[:, None, None]).softmax(-1)
        return (neighbours(value) @ weights.unsqueeze(-1)).squeeze(-1)

    return attend


def passes(attend: Attend) -> Callable[[], None]:
    size = (1, SHAPE.frames, SHAPE.heads, SHAPE.grid, SHAPE.grid, SHAPE.head_width)
    inputs = [torch.randn(size, requires_grad=True) for _ in range(3)]
    weight = torch.randn(size)

    def run() -> None:
        for x in inputs:
            x.grad = None
        (attend(*inputs) * weight).sum().backward()

    return run


def test_against_unfold(benchmark: BenchmarkFixture) -> None:
    module = WindowedAttention(SHAPE)
    attend, usual = (lambda *x: module(*x)[0]), unfolded(module)
    inputs = [torch.randn(1, SHAPE.frames, SHAPE.heads, SHAPE.grid, SHAPE.grid, SHAPE.head_width) for _ in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(attend(*inputs), usual(*inputs))
    compare(benchmark, passes(attend), passes(usual), faster=FASTER, share=SHARE)
