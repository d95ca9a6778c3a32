"""Products of every position with the positions around it: in a window of odd sides, centred on where the position lies.

Written as it stands, such a product gathers a copy of the window's neighbours for every position, each as wide as a position itself.
Here nothing is gathered but numbers: a matrix product relates all positions of one part of a frame to all those of another at once,
and of the result `pick` keeps what the window asks for. Backwards, `place` puts gradients where `pick` took from: the same products
then carry them on. So a backward pass needs the positions alone, and nothing that grows with the window times their width.

`affinity` and `aggregate` are the two products of attention in a window between two volumes of tokens,

    A[n, x, y, i, j] = Q[n, x, y] . K[n, x + i, y + j]        F[n, x, y] = sum over i, j of A[n, x, y, i, j] V[n, x + i, y + j]

where outside the frame stands a token with the same number in every channel. A frame is cut into bands of whole rows, and a band is
multiplied with the rows that its windows reach. `benchctl.layers.stss` relates positions of one volume with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchctl.errors import ShapeError

# N frames (of all heads and clips), H x W grid, C channels, S x S window; Q positions of a band, K positions that its windows reach

#: while a whole frame has no more positions than this many windows, it is one band: few products, and larger
WHOLE_FRAME_WINDOWS = 8


def check_side(name: str, side: int) -> None:
    """Raise ShapeError unless a window can be centred: its side is odd and positive."""
    if side < 1 or side % 2 == 0:
        near = f"{max(1, side - 1)} or {max(1, side + 1)}" if side > 1 else "1"
        raise ShapeError(f"window side {name} is {side}: a window is centred, so its sides are odd", fix=f"use {near}")


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision that products of `x` with itself are taken in: its own, or what autocast says."""
    # asked of an empty product, which autocast treats as any other
    none = x.new_empty(0, 1)
    return (none @ none.T).dtype


def covered(
    length: int, side: int, device: torch.device, *, start: int = 0, first: int = 0, others: int | None = None
) -> tuple[Tensor, Tensor]:
    """Along one axis: which of `others` positions, the first of which is at `first`, lie in the windows of those from `start` on.

    Args:
        length: number of positions with a window.
        side: of the window, odd.
        device: of the result.
        start: where the first of them is.
        first: where the first position that is looked at is.
        others: how many are looked at; None: `length`.

    Returns:
        Indices (length, side), each valid, and which of them mean a position that exists.
    """
    others = length if others is None else others
    index = torch.arange(length, device=device)[:, None] + torch.arange(side, device=device) + (start - first - side // 2)
    return index.clamp(0, others - 1), (index >= 0) & (index < others)


def both(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
    """`covered` along two axes, of a grid whose rows are `width` long, as one: (positions, U x V), twice."""
    (row, row_exists), (column, column_exists) = rows, columns
    index = row[:, None, :, None] * width + column[None, :, None, :]
    exists = row_exists[:, None, :, None] & column_exists[None, :, None, :]
    return index.flatten(2).flatten(0, 1), exists.flatten(2).flatten(0, 1)


def pick(product: Tensor, index: Tensor, exists: Tensor) -> Tensor:
    """(n, Q, K) of all pairs to (n, Q, places) of those in the window; zero where there is none."""
    return product.gather(2, index.expand(product.shape[0], -1, -1)).mul_(exists)


def place(values: Tensor, index: Tensor, exists: Tensor, product: Tensor) -> Tensor:
    """What `pick` takes from, added to `product` (n, Q, K) in place, which is returned; `values` is (n, Q, places)."""
    return product.scatter_add_(2, index.expand(values.shape[0], -1, -1), values * exists)


def affinity(query_NHWC: Tensor, key_NHWC: Tensor, side: int, *, outside: float = 0.0) -> Tensor:
    """The product of every position with each of those in its window.

    Under autocast it runs in its precision, as any product does.

    Args:
        query_NHWC: (N, H, W, C).
        key_NHWC: (N, H, W, C).
        side: of the window, odd; may be larger than the frame.
        outside: what every channel of a key outside the frame is.

    Returns:
        (N, H, W, side, side).

    Raises:
        ShapeError: `side` is even or not positive.
    """
    check_side("S", side)
    dtype = product_dtype(query_NHWC)
    query, key, bands = query_NHWC.to(dtype), key_NHWC.to(dtype), _Bands.of(query_NHWC, side, outside)
    needed = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    result: Tensor = _Affinity.apply(query, key, bands) if needed else _affinity(query, key, bands)
    return result.unflatten(-1, (side, side))


def aggregate(weight_NHWSS: Tensor, value_NHWC: Tensor, *, outside: float = 0.0) -> Tensor:
    """The sum of what lies in every position's window, weighted.

    Under autocast it runs in its precision, as any product does.

    Args:
        weight_NHWSS: (N, H, W, S, S), S odd.
        value_NHWC: (N, H, W, C).
        outside: what every channel of a value outside the frame is.

    Returns:
        (N, H, W, C).

    Raises:
        ShapeError: S is even.
    """
    side = weight_NHWSS.shape[-1]
    check_side("S", side)
    dtype = product_dtype(value_NHWC)
    weight, value, bands = weight_NHWSS.flatten(3).to(dtype), value_NHWC.to(dtype), _Bands.of(value_NHWC, side, outside)
    needed = torch.is_grad_enabled() and (weight.requires_grad or value.requires_grad)
    result: Tensor = _Aggregation.apply(weight, value, bands) if needed else _aggregation(weight, value, bands)
    return result


@dataclass(frozen=True)
class _Bands:
    """How a frame is cut: bands of `rows` rows, each with the rows that its windows reach."""

    height: int
    width: int
    side: int
    outside: float

    @classmethod
    def of(cls, x_NHWC: Tensor, side: int, outside: float) -> _Bands:
        return cls(x_NHWC.shape[1], x_NHWC.shape[2], side, outside)

    @property
    def rows(self) -> int:
        """Rows of a band: all, while what is multiplied beyond the window stays in proportion to it; else as many as a window has."""
        whole = self.height * self.width <= WHOLE_FRAME_WINDOWS * self.side**2
        return self.height if whole else min(self.side, self.height)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Each band's rows, and the rows that its windows reach and that exist."""
        for start in range(0, self.height, self.rows):
            stop = min(start + self.rows, self.height)
            yield slice(start, stop), slice(max(0, start - self.side // 2), min(self.height, stop + self.side // 2))

    def inside(self, band: slice, reached: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each position of a band, the positions of what it reaches that its window covers, (Q, S x S), and which exist."""
        rows = covered(
            band.stop - band.start, self.side, device, start=band.start, first=reached.start, others=reached.stop - reached.start
        )
        return both(rows, covered(self.width, self.side, device), self.width)


def _affinity(query: Tensor, key: Tensor, bands: _Bands) -> Tensor:
    """(N, H, W, C) twice to (N, H, W, S x S)."""
    result = query.new_empty(*query.shape[:3], bands.side**2)
    for band, reached in bands:
        index, exists = bands.inside(band, reached, query.device)
        query_band, key_band = query[:, band].flatten(1, 2), key[:, reached].flatten(1, 2)
        picked = pick(query_band @ key_band.transpose(1, 2), index, exists)
        if bands.outside:
            picked = picked.add_(query_band.sum(-1, keepdim=True).mul_(bands.outside) * ~exists)
        result[:, band] = picked.unflatten(1, (-1, bands.width))
    return result


def _aggregation(weight: Tensor, value: Tensor, bands: _Bands) -> Tensor:
    """(N, H, W, S x S) and (N, H, W, C) to (N, H, W, C)."""
    result = value.new_empty(value.shape)
    for band, reached in bands:
        index, exists = bands.inside(band, reached, value.device)
        weight_band, value_band = weight[:, band].flatten(1, 2), value[:, reached].flatten(1, 2)
        summed = _among(weight_band, value_band, index, exists) @ value_band
        if bands.outside:
            summed = summed.add_((weight_band * ~exists).sum(-1, keepdim=True).mul_(bands.outside))
        result[:, band] = summed.unflatten(1, (-1, bands.width))
    return result


def _returned(weight: Tensor, x: Tensor, bands: _Bands) -> Tensor:
    """What every position is given by those whose windows it lies in: (N, H, W, S x S) and (N, H, W, C) to (N, H, W, C)."""
    result = torch.zeros_like(x)
    for band, reached in bands:
        index, exists = bands.inside(band, reached, x.device)
        weight_band, x_band = weight[:, band].flatten(1, 2), x[:, band].flatten(1, 2)
        given = _among(weight_band, x[:, reached].flatten(1, 2), index, exists).transpose(1, 2) @ x_band
        result[:, reached] += given.unflatten(1, (-1, bands.width))
    return result


def _among(values: Tensor, reached: Tensor, index: Tensor, exists: Tensor) -> Tensor:
    """Values for the positions of a window, (N, Q, S x S), as values for all that a band reaches, (N, Q, K)."""
    return place(values, index, exists, values.new_zeros(*values.shape[:2], reached.shape[1]))


class _Affinity(torch.autograd.Function):
    """`_affinity` with a gradient that keeps queries and keys alone."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, bands: _Bands) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.bands = bands
        return _affinity(query, key, bands)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        query, key = ctx.saved_tensors
        return _aggregation(given, key, ctx.bands), _returned(given, query, ctx.bands), None


class _Aggregation(torch.autograd.Function):
    """`_aggregation` with a gradient that keeps weights and values alone."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor, bands: _Bands) -> Tensor:
        ctx.save_for_backward(weight, value)
        ctx.bands = bands
        return _aggregation(weight, value, bands)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, value = ctx.saved_tensors
        return _affinity(given, value, ctx.bands), _returned(weight, given, ctx.bands), None
