"""Attention of every position with a window of another frame, which gives its scores away as well as what it attended.

    A[q, k] = Q[q] . K[k] / sqrt(D) + B        F[q] = sum over k of softmax(A[q])[k] V[k]

A `sliding` window is centred on the query, so that a place in the window means the same displacement for every query, and B has one
number for each. Otherwise the frame is cut into windows, as Swin cuts it, and a query looks at the one that it lies in: the keys do
not depend on where in it the query lies, a place means another displacement for each, and B is by displacement, as Swin's. Beyond the
frame, a token of 1e-6 in every channel stands as key and value (EMIM, section 3.3), in both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.window import affinity, aggregate, check_side

# B batch, T frames, N heads, H x W grid, D channels of a head, S x S window; M windows of a frame

#: what every channel of a token beyond the frame is
OUTSIDE = 1e-6


@dataclass(frozen=True)
class WindowedShape:
    """Sizes of attention in windows."""

    frames: int
    #: H = W
    grid: int
    heads: int
    #: D
    head_width: int
    #: S, odd
    side: int
    sliding: bool = True


class WindowedAttention(nn.Module):
    """The two products of attention in a window, and what lies between them; no linear layers.

    Raises:
        ShapeError: at construction, the window's side is even or not positive.
    """

    #: what the window asks for and what is executed differ (`benchctl.layers.window`); papers count the first
    counted_as = "window"

    def __init__(self, shape: WindowedShape) -> None:
        super().__init__()
        check_side("S", shape.side)
        self.shape = shape
        displacements = shape.side if shape.sliding else 2 * shape.side - 1
        #: B, for each head and displacement
        self.bias = nn.Parameter(torch.empty(shape.heads, displacements**2))
        nn.init.trunc_normal_(self.bias, std=0.02)
        if not shape.sliding:
            self.displacement: Tensor
            self.register_buffer("displacement", displacement_index(shape.side), persistent=False)

    @property
    def window_macs(self) -> int:
        """Multiply-accumulates that the window asks for, of one clip: two for each query, place in its window and channel."""
        shape = self.shape
        return 2 * shape.frames * shape.grid**2 * shape.side**2 * shape.heads * shape.head_width

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What every position attended, and its scores before the softmax.

        Args:
            query: (B, T, N, H, W, D).
            key: the same shape; keys of frame t are what queries of frame t look at.
            value: the same shape.

        Returns:
            (B, T, N, H, W, D) and (B, T, N, H, W, S x S).
        """
        size = query.shape[:3]
        flat = [x.flatten(0, 2) for x in (query * self.shape.head_width**-0.5, key, value)]
        attended, scores = self._sliding(*flat) if self.shape.sliding else self._cut(*flat)
        return attended.unflatten(0, size), scores.unflatten(0, size)

    def _sliding(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        side = self.shape.side
        scores = affinity(query, key, side, outside=OUTSIDE).flatten(3).unflatten(0, (-1, self.shape.heads))
        scores = (scores + self.bias[:, None, None]).flatten(0, 1)
        weights = scores.softmax(dim=-1).unflatten(-1, (side, side))
        return aggregate(weights, value, outside=OUTSIDE), scores

    def _cut(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (self._windows(x) for x in (query, key, value))
        scores = (query @ key.transpose(-2, -1)).unflatten(0, (-1, self.shape.heads))
        # (heads, 1, queries of a window, keys of a window)
        scores = (scores + self.bias[:, self.displacement][:, None]).flatten(0, 1)
        return self._whole(scores.softmax(dim=-1).to(value.dtype) @ value), self._whole(scores)

    def _windows(self, x: Tensor) -> Tensor:
        """(n, H, W, D) to (n, M, S x S, D), filled up to whole windows at the right and the bottom."""
        side, missing = self.shape.side, -self.shape.grid % self.shape.side
        padded = F.pad(x, (0, 0, 0, missing, 0, missing), value=OUTSIDE)
        return padded.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _whole(self, x: Tensor) -> Tensor:
        """(n, M, S x S, D) to (n, H, W, D), what was filled up being left out."""
        side, grid = self.shape.side, self.shape.grid
        windows = -(-grid // side)
        whole = x.unflatten(2, (side, side)).unflatten(1, (windows, windows)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return whole[:, :grid, :grid]

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.shape}"


def displacement_index(side: int) -> Tensor:
    """For each pair of positions in a window of S x S, which of the (2 S - 1)^2 displacements leads from the first to the second."""
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
    row, column = place[:, None, :] - place[:, :, None] + side - 1
    return row * (2 * side - 1) + column


def later(x_BT: Tensor, frames: int) -> Tensor:
    """Frame t + `frames` in the place of frame t, and the last frame where there is none: (B, T, ...) to the same shape."""
    if frames == 0:
        return x_BT
    index = (torch.arange(x_BT.shape[1], device=x_BT.device) + frames).clamp(max=x_BT.shape[1] - 1)
    return x_BT.index_select(1, index)
