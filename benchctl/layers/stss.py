"""Space-time self-similarity (STSS): how alike a position is to each of its neighbours in space and time.

    S[t, h, w, l, u, v] = cos(F[t, h, w], F[t + l, h + u, w + v])        MOSS, equations 1 and 2

for offsets (l, u, v) in a window (L, U, V) of odd sides, centred; zero where the neighbour lies outside the clip or the frame.

Written as it stands, this gathers L x U x V neighbours of every position, each C channels wide. Here keys are never gathered. Frames
are cut into units, and of two units a matrix product gives the similarities of all their positions at once, from which those in the
window are picked:

    dense   a unit is a frame: one product for each l. Few, large products, of which a window keeps U x V / (H x W).
    rows    a unit is one row of a frame: one product for each l and u, of which a window keeps V / W.

Units are laid out with the zeros of the surrounding between them, so that "the unit at offset (l, u)" is a constant distance for
all units at once: a view, not a copy. What p says about q, q says about p, so half of the products serve both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.window import both, check_side, covered, pick, place, product_dtype

# B batch, T frames, H x W grid, C channels, L x U x V window; R units (with the empty ones between them), M positions of a unit

#: (L, U, V), odd
Window = tuple[int, int, int]
Strategy = Literal["auto", "dense", "rows"]

#: a vector that is shorter than this is not scaled to length 1: the direction of almost nothing is noise
EPSILON = 1e-6


def stss(features_BTHWC: Tensor, window: Window, *, strategy: Strategy = "auto") -> Tensor:
    """Cosine self-similarity of every position with its neighbours.

    Under autocast the products run in its precision, as any product does; lengths are taken in fp32 or better.

    Args:
        features_BTHWC: (B, T, H, W, C).
        window: (L, U, V), odd; may be larger than the clip.
        strategy: how; `auto` decides by shape (`chosen`).

    Returns:
        (B, T, H, W, L, U, V).

    Raises:
        ShapeError: a side of the window is even or not positive.
    """
    check_window(window)
    if strategy == "auto":
        strategy = chosen(features_BTHWC.shape[2], features_BTHWC.shape[3], window)
    length = features_BTHWC.float() if features_BTHWC.dtype in (torch.float16, torch.bfloat16) else features_BTHWC
    unit_BTHWC = F.normalize(length, dim=-1, eps=EPSILON)
    unit_BTHWC = unit_BTHWC.to(product_dtype(features_BTHWC))
    layout = _Layout.of(unit_BTHWC, window, by_row=strategy == "rows")
    laid_RMC = layout.lay(unit_BTHWC)
    if torch.is_grad_enabled() and laid_RMC.requires_grad:
        picked: Tensor = _Similarity.apply(laid_RMC, layout)
    else:
        picked = _similarity(laid_RMC, layout)
    return layout.collect(picked)


def chosen(height: int, width: int, window: Window) -> Literal["dense", "rows"]:
    """`dense` while what it computes for one l is no larger than the transform itself, so that it never decides peak memory."""
    sides = window[0] * window[1] * window[2]
    return "dense" if height * width <= sides else "rows"


def check_window(window: Window) -> None:
    """Raise ShapeError unless every side is odd and positive."""
    for name, side in zip(("L", "U", "V"), window, strict=True):
        check_side(name, side)


class SelfSimilarity(nn.Module):
    """`stss` as a module, so that its products can be told from others: papers leave them out of their counts.

    Args:
        window: (L, U, V), odd.
    """

    #: under which name these products are counted by themselves
    counted_as = "correlation"

    def __init__(self, window: Window) -> None:
        super().__init__()
        check_window(window)
        self.window = window

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, L, U, V)."""
        return stss(features_BTHWC, self.window)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"window={self.window}"


@dataclass(frozen=True)
class _Layout:
    """Where positions lie when a clip is cut into units, and which pairs of them a window asks for.

    A unit is a frame with M = H x W, or a row with M = W. Between the frames of two clips lie L // 2 empty frames, and with rows
    between two frames U // 2 empty rows: whatever reaches over the edge reaches one of them.
    """

    batch: int
    frames: int
    height: int
    width: int
    window: Window
    by_row: bool

    @classmethod
    def of(cls, features_BTHWC: Tensor, window: Window, *, by_row: bool) -> _Layout:
        batch, frames, height, width, _ = features_BTHWC.shape
        return cls(batch, frames, height, width, window, by_row)

    @property
    def _reach(self) -> tuple[int, int]:
        """Empty frames and empty rows between units; no offset that meets anything is farther than the clip is long."""
        L, U, _ = self.window
        return min(L // 2, self.frames - 1), min(U // 2, self.height - 1)

    def lay(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (R, M, C): empty frames after each clip and empty rows after each frame, in the order of time."""
        after, below = self._reach
        if self.by_row:
            return F.pad(x_BTHWC, (0, 0, 0, 0, 0, below, 0, after)).flatten(0, 2)
        return F.pad(x_BTHWC, (0, 0, 0, 0, 0, 0, 0, after)).flatten(0, 1).flatten(1, 2)

    def collect(self, picked: Tensor) -> Tensor:
        """(R, M, places) with a place for every offset to (B, T, H, W, L, U, V)."""
        after, below = self._reach
        if self.by_row:
            x = picked.unflatten(0, (self.batch, self.frames + after, self.height + below))[:, : self.frames, : self.height]
        else:
            x = picked.unflatten(0, (self.batch, self.frames + after))[:, : self.frames].unflatten(2, (self.height, self.width))
        return x.unflatten(-1, self.window)

    def pairs(self) -> Iterator[tuple[int, slice, slice | None]]:
        """Half of the pairs of units that a window relates; the others are these, seen from the other side.

        Yields:
            The distance from the first unit to the second, 0 or more; the places of what the first says about the second; and of
            what the second says about the first, except where they are one.
        """
        L, U, V = self.window
        after, below = self._reach
        inside = V if self.by_row else U * V
        middle = (L * U * V - inside) // 2
        for lag in range(after + 1):
            for u in range(-below, below + 1) if self.by_row else (0,):
                distance, offset = (lag * (self.height + below) + u, lag * U * V + u * V) if self.by_row else (lag, lag * U * V)
                if distance == 0:
                    yield 0, slice(middle, middle + inside), None
                elif distance > 0:
                    yield distance, slice(middle + offset, middle + offset + inside), slice(middle - offset, middle - offset + inside)

    @property
    def places(self) -> int:
        """L x U x V."""
        L, U, V = self.window
        return L * U * V

    def inside(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each position of a unit, the positions of another that its window covers, (M, places), and which of them exist."""
        _, U, V = self.window
        columns = covered(self.width, V, device)
        return columns if self.by_row else both(covered(self.height, U, device), columns, self.width)


def _similarity(x_RMC: Tensor, layout: _Layout) -> Tensor:
    """(R, M, C) of unit vectors to (R, M, L x U x V); zero for a place without a position."""
    R, M, _ = x_RMC.shape
    index, exists = layout.inside(x_RMC.device)
    result = x_RMC.new_zeros(R, M, layout.places)
    for distance, forth, back in layout.pairs():
        pairs = R - distance
        product = x_RMC[:pairs] @ x_RMC[distance:].transpose(1, 2)
        result[:pairs, :, forth] = pick(product, index, exists)
        if back is not None:
            result[distance:, :, back] = pick(product.transpose(1, 2), index, exists)
    return result


class _Similarity(torch.autograd.Function):
    """`_similarity` with a gradient that keeps the units alone, and adds into one tensor instead of making one for every pair."""

    @staticmethod
    def forward(ctx: Any, x_RMC: Tensor, layout: _Layout) -> Tensor:
        ctx.save_for_backward(x_RMC)
        ctx.layout = layout
        return _similarity(x_RMC, layout)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        (x_RMC,) = ctx.saved_tensors
        R, M, _ = x_RMC.shape
        index, exists = ctx.layout.inside(x_RMC.device)
        total = torch.zeros_like(x_RMC)
        for distance, forth, back in ctx.layout.pairs():
            pairs = R - distance
            # of the product of all positions, the gradient is zero except where the window picked
            product = place(given[:pairs, :, forth], index, exists, x_RMC.new_zeros(pairs, M, M))
            if back is None:
                total.baddbmm_(product + product.transpose(1, 2), x_RMC)
                continue
            place(given[distance:, :, back], index, exists, product.transpose(1, 2))
            total[:pairs].baddbmm_(product, x_RMC[distance:])
            total[distance:].baddbmm_(product.transpose(1, 2), x_RMC[:pairs])
        return total, None
