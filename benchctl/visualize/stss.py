"""What space-time self-similarity (STSS) says about a point, order by order (MOSS, equation 3 and Figures 3, 5 and 7).

    S(1) = f(F),  S(n) = f(M(n - 1)),  M(n) = g(n)(S(n))

with f the cosine self-similarity over a window, F what an encoder makes of the frames, and g(n) the STSS encoder of order n. The map
of a query shows S(n) at the query, each offset put where it points to; the norm row shows the length of M(n) at every position.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchctl.errors import ShapeError, UsageError
from benchctl.layers import stss as stss_layer
from benchctl.layers.multi_order_similarity import OrderOutput
from benchctl.layers.stss import Window
from benchctl.visualize.clip import Query

# T frames, H x W grid, C channels, L x U x V window, Q queries

Floats = npt.NDArray[np.float32]

HIGHEST_ORDER = 4
#: most that the similarities of one order may take; at the peak, five times as much was seen in use
_LARGEST_BYTES = 2**30


@dataclass(frozen=True)
class Source:
    """What STSS is computed on, and how each order is made into the features of the next."""

    name: str
    #: where its weights come from, or that it has none, as the figure says it
    weights: str
    #: F: (1, T, H, W, C)
    features: Tensor
    #: (L, U, V) of each order that can be shown, from the first on
    windows: tuple[Window, ...]
    #: from F to S(n) and M(n) of those orders, one at a time
    each_order: Callable[[Tensor], Iterator[OrderOutput]]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        frames, height, width = self.features.shape[1:4]
        return frames, height, width

    def cell(self, query: Query, resolution: int) -> tuple[int, int, int]:
        """The grid position (t, h, w) that `query` lies in, of frames with `resolution` pixels a side."""
        _, height, width = self.grid
        return query.frame, query.y * height // resolution, query.x * width // resolution


@dataclass(frozen=True)
class OrderMaps:
    """One order."""

    order: int
    #: (Q, T, H, W): S(n) of each query, -1 ... 1; NaN outside its window
    similarity: Floats
    #: (T, H, W): L2 norm of M(n)
    norms: Floats


def order_maps(source: Source, cells: Sequence[tuple[int, int, int]], orders: Sequence[int]) -> tuple[OrderMaps, ...]:
    """Maps and norms of `orders`, in ascending order.

    Args:
        source: features, window, encoders.
        cells: grid positions (t, h, w) of the queries.
        orders: which orders, each of 1 to 4.

    Raises:
        UsageError: an order that is none or that the source does not compute, or a window too large to compute.
    """
    _check(source, orders)
    found = []
    with torch.inference_mode():
        for output in itertools.islice(source.each_order(source.features), max(orders)):
            if output.order in orders:
                maps = np.stack([placed(output.similarity[0, t, h, w], (t, h, w), source.grid) for t, h, w in cells])
                found.append(OrderMaps(output.order, maps, output.motion[0].norm(dim=-1).float().numpy()))
    return tuple(found)


def placed(offsets_LUV: Tensor, query: tuple[int, int, int], grid: tuple[int, int, int]) -> Floats:
    """Similarities by offset, put where the offsets point to from `query` (t, h, w): (T, H, W), NaN outside the window."""
    shown = torch.full(grid, float("nan"))
    seen, read = [], []
    for centre, size, length in zip(query, grid, offsets_LUV.shape):
        first, last = window_span(centre, size, length)
        seen.append(slice(first, last + 1))
        offset = centre - length // 2
        read.append(slice(first - offset, last + 1 - offset))
    shown[tuple(seen)] = offsets_LUV[tuple(read)].float()
    placed_maps: Floats = shown.numpy()
    return placed_maps


def window_span(centre: int, size: int, length: int) -> tuple[int, int]:
    """First and last position of 0 ... size - 1 that a window of `length` around `centre` covers."""
    return max(0, centre - length // 2), min(size - 1, centre + length // 2)


def check_window(window: Sequence[int]) -> Window:
    """`window` as (L, U, V).

    Raises:
        UsageError: not three sides, or one that is even or not positive.
    """
    where = f"--window {','.join(map(str, window))}"
    if len(window) != 3:
        raise UsageError("expected L,U,V", where=where, fix="for example --window 5,9,9")
    length, height, width = window
    try:
        stss_layer.check_window((length, height, width))
    except ShapeError as error:
        raise UsageError(error.what, where=where, fix=error.fix) from None
    return length, height, width


def check_orders(orders: Sequence[int]) -> None:
    """Raise UsageError unless every order is 1 to 4, and there is one."""
    wrong = [order for order in orders if not 1 <= order <= HIGHEST_ORDER]
    if wrong or not orders:
        what = f"there is no order {wrong[0]}" if wrong else "no order"
        raise UsageError(what, where="--orders", fix=f"orders are 1 to {HIGHEST_ORDER}")


def _check(source: Source, orders: Sequence[int]) -> None:
    check_orders(orders)
    if max(orders) > len(source.windows):
        raise UsageError(f"'{source.name}' computes orders 1 to {len(source.windows)}", where="--orders", fix="ask for these")
    largest = max(source.windows[: max(orders)], key=math.prod)
    needed = 4 * math.prod(source.grid) * math.prod(largest)
    if needed > _LARGEST_BYTES:
        sides = "x".join(map(str, largest))
        raise UsageError(
            f"a window of {sides} holds {needed / 2**30:.1f} GiB of similarities an order, more than {_LARGEST_BYTES / 2**30:.0f}",
            where="--window",
            fix="ask for a smaller window, fewer frames or a lower resolution",
        )
