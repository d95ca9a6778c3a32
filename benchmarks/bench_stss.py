"""Space-time self-similarity against unfold-then-multiply: time and peak memory of a forward and backward pass, as ratios.

Both run in turns in the same process, on one thread, so that a busy machine slows both. Memory is the allocator's exact peak. At a
64 x 64 grid the unfolded keys alone would take 41 GB, so there only ours runs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import compare, one_thread
from torch import Tensor

from benchctl.layers.stss import Window, stss
from benchctl.probes.memory import live_bytes

WINDOW: Window = (5, 9, 9)
FRAMES, GRID, WIDTH = 8, 14, 768
#: what MOSS needs of it: as many times faster, and as small a share of the memory
FASTER, SHARE = 20.0, 0.1


def unfolded(features_BTHWC: Tensor, window: Window) -> Tensor:
    """The usual way: pad, gather every position's neighbours, multiply with the position, sum over channels."""
    L, U, V = window
    x = F.normalize(features_BTHWC, dim=-1, eps=1e-6)
    padded = F.pad(x, (0, 0, V // 2, V // 2, U // 2, U // 2, L // 2, L // 2))
    neighbours = padded.unfold(1, L, 1).unfold(2, U, 1).unfold(3, V, 1)  # B, T, H, W, C, L, U, V
    return (x[..., None, None, None] * neighbours).sum(4)


def passes(similarity: Callable[[Tensor, Window], Tensor], grid: int) -> Callable[[], None]:
    features = torch.randn(1, FRAMES, grid, grid, WIDTH, requires_grad=True)
    weight = torch.randn(1, FRAMES, grid, grid, *WINDOW)

    def run() -> None:
        features.grad = None
        (similarity(features, WINDOW) * weight).sum().backward()

    return run


def test_against_unfold(benchmark: BenchmarkFixture) -> None:
    compare(benchmark, passes(stss, GRID), passes(unfolded, GRID), faster=FASTER, share=SHARE)


@pytest.mark.parametrize("grid", [64])
def test_large_grid(benchmark: BenchmarkFixture, grid: int) -> None:
    keys = FRAMES * grid * grid * WINDOW[0] * WINDOW[1] * WINDOW[2] * WIDTH * 4
    run = passes(stss, grid)
    with one_thread():
        taken = live_bytes(run).value_bytes
    assert taken is not None
    print(f"\npeak {taken / 2**30:.2f} GiB; unfolded keys alone would be {keys / 2**30:.0f} GiB")
    benchmark.extra_info.update(peak_bytes=taken, unfolded_key_bytes=keys)
    with one_thread():
        benchmark.pedantic(run, rounds=2)
    assert keys > 24 * 2**30
    assert taken < keys / 20
