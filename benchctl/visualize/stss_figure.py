"""The figure of STSS maps: frames with the queries and their windows, a map per query and order, a norm per order."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchctl.visualize.clip import Clip, Query
from benchctl.visualize.png import FAINT, write
from benchctl.visualize.stss import Floats, OrderMaps, Source, window_span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: a colour for each query, told apart by the colour-blind (after Okabe and Ito)
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_OUTSIDE = "#e9e9e9"

# ---- inches ----
_PICTURE = 0.98
#: a figure is not wider than this: many frames are drawn smaller
_WIDEST = 15.0
_GAP, _BLOCK_GAP = 0.05, 0.2
_LEFT, _RIGHT, _BOTTOM = 0.78, 0.62, 0.12
_MARGIN, _TITLE_LINE, _LINE, _FRAME_NAMES = 0.12, 0.22, 0.15, 0.22
#: width of a character of the title, and of the caption
_TITLE_CHARACTER, _CHARACTER = 0.1, 0.066

#: share of the values that a colour scale of similarities spans; the few above are the query itself and its like
_SPANNED = 0.995


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: Clip
    source: Source
    queries: tuple[Query, ...]
    orders: tuple[OrderMaps, ...]

    @property
    def cells(self) -> tuple[tuple[int, int, int], ...]:
        """Grid positions (t, h, w) of the queries."""
        return tuple(self.source.cell(query, self.clip.resolution) for query in self.queries)


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state.

    From top to bottom: frames; for each query a row of maps per order; a row of norms per order. Each row has a picture per frame,
    and each row of maps or norms a colour bar.
    """
    from matplotlib.figure import Figure as NewFigure

    frames = len(picture.clip.frames)
    side = min(_PICTURE, (_WIDEST - _LEFT - _RIGHT) / frames - _GAP)
    width = max(_LEFT + frames * (side + _GAP) + _RIGHT, 5.0)
    title = textwrap.wrap(_title(picture), int((width - 0.3) / _TITLE_CHARACTER))
    caption = textwrap.wrap(_caption(picture), int((width - 0.3) / _CHARACTER))
    below_title = _MARGIN + _TITLE_LINE * len(title)
    blocks = [1] + [len(picture.orders)] * (len(picture.queries) + 1)
    top = below_title + _LINE * len(caption) + _FRAME_NAMES
    height = top + sum(blocks) * (side + _GAP) + len(blocks[1:]) * _BLOCK_GAP + _BOTTOM
    made = NewFigure(figsize=(width, height))
    # a file name may hold dollar signs, which are not formulas
    text: dict[str, Any] = {"va": "top", "linespacing": 1.3, "parse_math": False}
    made.text(_MARGIN / width, 1 - _MARGIN / height, "\n".join(title), fontsize=10, fontweight="bold", **text)
    made.text(_MARGIN / width, 1 - below_title / height, "\n".join(caption), fontsize=7.5, color=FAINT, **text)

    sheet = _Sheet(made, side, top)
    _frames_row(sheet.row(frames), picture)
    for index, colour in zip(range(len(picture.queries)), COLOURS):
        sheet.skip(_BLOCK_GAP)
        for order in picture.orders:
            row = sheet.row(frames)
            image = _maps_row(row, order, picture.cells[index], index, colour)
            _row_name(row[0], f"$S^{{({order.order})}}$", f"query {index + 1}", colour)
            sheet.colour_bar(image, "cosine similarity", extend="both")
    sheet.skip(_BLOCK_GAP)
    for order in picture.orders:
        row = sheet.row(frames)
        image = _norms_row(row, order.norms)
        _row_name(row[0], f"$\\Vert M^{{({order.order})}}\\Vert_2$", "feature norm", FAINT)
        sheet.colour_bar(image, "L2 norm", extend="neither")
    return made


class _Sheet:
    """Rows of square pictures, from the top of a figure downwards; lengths in inches."""

    def __init__(self, made: Figure, side: float, top: float) -> None:
        self._made, self._side = made, side
        self._width, self._height = made.get_size_inches()
        self._next = self._height - top
        self._columns = 0

    def row(self, columns: int) -> list[Axes]:
        """Axes of the next row, without ticks."""
        self._columns = columns
        bottom = self._next - self._side
        row = []
        for column in range(columns):
            left = _LEFT + column * (self._side + _GAP)
            axes = self._axes(left, bottom, self._side)
            axes.set_xticks([])
            axes.set_yticks([])
            row.append(axes)
        self._next = bottom - _GAP
        return row

    def skip(self, inches: float) -> None:
        """Leave room before the next row."""
        self._next -= inches

    def colour_bar(self, image: AxesImage, meaning: str, *, extend: str) -> None:
        """The scale of the last row, at its right end."""
        bottom = self._next + _GAP
        axes = self._axes(_LEFT + self._columns * (self._side + _GAP) + 0.03, bottom, 0.09)
        bar = self._made.colorbar(image, cax=axes, extend=extend)
        bar.ax.tick_params(labelsize=6, length=2, width=0.5, pad=1.5)
        bar.ax.locator_params(nbins=4)
        bar.ax.ticklabel_format(useOffset=False, style="plain")
        bar.outline.set_linewidth(0.5)
        bar.set_label(meaning, fontsize=6, labelpad=2)

    def _axes(self, left: float, bottom: float, width: float) -> Axes:
        return self._made.add_axes((left / self._width, bottom / self._height, width / self._width, self._side / self._height))


def _frames_row(row: Sequence[Axes], picture: Picture) -> None:
    """Frames, each query where it is, and its window of the first order in the frames that it reaches."""
    from matplotlib.patches import Rectangle

    resolution = picture.clip.resolution
    for t, (axes, frame) in enumerate(zip(row, picture.clip.frames)):
        axes.imshow(frame, interpolation="antialiased")
        axes.set_title(f"frame {t}", fontsize=7, pad=2.5, color=FAINT)
    grid = picture.source.grid
    for (t, h, w), query, colour in zip(picture.cells, picture.queries, COLOURS):
        spans = [window_span(*each) for each in zip((t, h, w), grid, picture.source.windows[0])]
        (first, last), (above, below), (left, right) = spans
        down, across = resolution / grid[1], resolution / grid[2]
        corner = (left * across - 0.5, above * down - 0.5)
        for axes in row[first : last + 1]:
            outline: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 1.3, "clip_on": False}
            axes.add_patch(Rectangle(corner, (right - left + 1) * across, (below - above + 1) * down, **outline))
        row[t].plot(query.x, query.y, marker="o", markersize=4.5, color=colour, markeredgecolor="white", markeredgewidth=0.9)
    # coordinates to name a query by
    row[0].set_yticks([0, resolution // 2, resolution - 1])
    row[0].tick_params(labelsize=5.5, length=2, width=0.5, pad=1.5, colors=FAINT)


def _maps_row(row: Sequence[Axes], order: OrderMaps, query: tuple[int, int, int], index: int, colour: str) -> AxesImage:
    """One order's maps of one query, on a scale that the maps of all queries share."""
    from matplotlib.patches import Rectangle

    low, high, colours = _scale(order.similarity)
    for axes, shown in zip(row, order.similarity[index]):
        axes.set_facecolor(_OUTSIDE)
        image = axes.imshow(shown, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    t, h, w = query
    row[t].add_patch(Rectangle((w - 0.5, h - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.0))
    for spine in row[t].spines.values():
        spine.set(edgecolor=colour, linewidth=1.6)
    return image


def _scale(similarity: Floats) -> tuple[float, float, str]:
    """Lowest and highest value of the colours, and the colours: two, meeting at 0, where there are similarities below 0, else one."""
    values = similarity[~np.isnan(similarity)]
    low, high = (float(value) for value in np.quantile(values, (1 - _SPANNED, _SPANNED)))
    if low >= 0:
        return low, high, "Reds"
    limit = max(-low, high)
    return -limit, limit, "RdBu_r"


def _norms_row(row: Sequence[Axes], norms: Floats) -> AxesImage:
    for axes, shown in zip(row, norms):
        image = axes.imshow(shown, cmap="viridis", vmin=float(norms.min()), vmax=float(norms.max()), interpolation="nearest")
    return image


def _row_name(axes: Axes, symbol: str, below: str, colour: str) -> None:
    axes.annotate(symbol, (0, 0.5), (-6, 5), xycoords="axes fraction", textcoords="offset points", ha="right", va="center", fontsize=9)
    axes.annotate(
        below,
        (0, 0.5),
        (-6, -7),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=6.5,
        color=colour,
    )


def _title(picture: Picture) -> str:
    return f"Space-time self-similarity: {picture.clip.name}, encoder {picture.source.name} ({picture.source.weights})"


def _caption(picture: Picture) -> str:
    computed = picture.source.windows[: picture.orders[-1].order]
    windows = " then ".join(dict.fromkeys(" x ".join(map(str, window)) for window in computed))
    grid = " x ".join(map(str, picture.source.grid))
    queries = "; ".join(f"{number} at {query}" for number, query in enumerate(picture.queries, start=1))
    return (
        f"Window L x U x V = {windows} on a grid of {grid} (frames x rows x columns), outlined on the frames; grey lies outside. "
        f"Query {queries} (pixels of {picture.clip.resolution} x {picture.clip.resolution}). "
        "S: similarity of the query to each position, order in brackets. M: features made of S, from which the next order is computed."
    )
