"""The figure of weight similarity: a bar for each layer, in the order of the network, with its block behind it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.visualize import png
from benchctl.visualize.weight_similarity import LayerSimilarity, common_prefix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAR, _BAND = "#0072B2", "#f1f3f5"

# ---- inches ----
_ROW, _BARS, _MARGIN, _AXIS = 0.165, 4.0, 0.14, 0.42
_TITLE_LINE, _LINE = 0.22, 0.15
#: width of a character of the title, of the caption, and of a layer's name
_TITLE_CHARACTER, _CHARACTER, _NAME_CHARACTER = 0.1, 0.066, 0.062
#: for the numbers at the end of the bars
_NUMBERS = 0.45
_NARROWEST = 6.4


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    #: what the two models are called
    first: str
    second: str
    #: at least one of them
    layers: tuple[LayerSimilarity, ...]


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    png.write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state."""
    from matplotlib.figure import Figure as NewFigure

    rows, prefix = picture.layers, common_prefix(picture.layers)
    names = [row.layer.removeprefix(prefix) for row in rows]
    left = _MARGIN + _NAME_CHARACTER * max(map(len, names)) + 0.1
    width = max(left + _BARS + _NUMBERS + _MARGIN, _NARROWEST)
    title = [
        line
        for part in (f"Weight similarity: {picture.first}", f"and {picture.second}")
        for line in textwrap.wrap(part, int((width - 2 * _MARGIN) / _TITLE_CHARACTER))
    ]
    caption = textwrap.wrap(_caption(prefix), int((width - 2 * _MARGIN) / _CHARACTER))
    below_title = _MARGIN + _TITLE_LINE * len(title)
    top = below_title + _LINE * len(caption) + 0.1
    height = top + _ROW * len(rows) + _AXIS + _MARGIN
    made = NewFigure(figsize=(width, height))
    text: dict[str, Any] = {"va": "top", "linespacing": 1.3, "parse_math": False}
    made.text(_MARGIN / width, 1 - _MARGIN / height, "\n".join(title), fontsize=10, fontweight="bold", **text)
    made.text(_MARGIN / width, 1 - below_title / height, "\n".join(caption), fontsize=7.5, color=png.FAINT, **text)
    bars = (width - left - _NUMBERS - _MARGIN) / width
    axes = made.add_axes((left / width, (_AXIS + _MARGIN) / height, bars, _ROW * len(rows) / height))
    _bars(axes, rows, names)
    return made


def _bars(axes: Axes, rows: tuple[LayerSimilarity, ...], names: list[str]) -> None:
    lowest = min(0.0, *(row.cosine for row in rows if row.cosine is not None), 0.0)
    axes.set_xlim(lowest * 1.02, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    start = 0
    for index, (_, block) in enumerate(groupby(rows, key=lambda row: row.group)):
        count = len(list(block))
        if index % 2:
            axes.axhspan(start - 0.5, start + count - 0.5, color=_BAND, zorder=0)
        start += count
    for y, row in enumerate(rows):
        if row.cosine is None:
            axes.text(0.006, y, row.reason, va="center", fontsize=6.5, color=png.FAINT, parse_math=False)
            continue
        axes.barh(y, row.cosine, height=0.72, color=_BAR, zorder=2)
        axes.annotate(
            f"{row.cosine:.3f}", (1, y), (4, 0), xycoords="data", textcoords="offset points", va="center", fontsize=6.5, color=png.INK
        )
    axes.axvline(0, color=png.FAINT, linewidth=0.5, zorder=3)
    axes.set_yticks(range(len(rows)), names, fontsize=6.5, parse_math=False)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.tick_params(axis="x", labelsize=7, length=2, pad=2)
    axes.grid(axis="x", linewidth=0.4, color="#d5d5d5", zorder=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("cosine similarity", fontsize=7.5, labelpad=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _caption(prefix: str) -> str:
    within = f" All names begin with {prefix.removesuffix('.')}." if prefix else ""
    return (
        "Cosine between the weights of a layer in both models, flattened. From the input (top) to the classifier; a band is a block. "
        f"Biases and normalisations are left out.{within}"
    )
