"""The figure of t-SNE panels: one for each method, with a colour and a marker for each class and one legend for all."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchctl.visualize import png
from benchctl.visualize.tsne import NEIGHBOURS, Labels, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: told apart by the colour-blind (after Okabe and Ito, and Tol)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#666666")
#: with the same colours again, classes have other markers
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
#: more classes than colours and markers tell apart have no legend
_MOST_NAMED = len(_COLOURS) * len(_MARKERS)

# ---- inches ----
_PANEL, _GAP, _MARGIN = 3.1, 0.16, 0.14
_MOST_COLUMNS, _NARROWEST = 4, 6.4
_TITLE_LINE, _LINE, _PANEL_NAME, _LEGEND_LINE = 0.22, 0.15, 0.42, 0.17
#: width of a character of the title, of the caption, and of the legend
_TITLE_CHARACTER, _CHARACTER, _LEGEND_CHARACTER = 0.1, 0.066, 0.068
_LEGEND_MARK = 0.3
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    dataset: str
    classes: tuple[str, ...]
    labels: Labels
    panels: tuple[Panel, ...]
    perplexity: float
    #: test clips that could not be read
    unreadable: int
    #: of a clip: T frames of R x R pixels
    frames: int
    resolution: int

    @property
    def shown(self) -> list[int]:
        """Classes of which there is a clip."""
        return sorted(set(self.labels.tolist()))

    @property
    def majority(self) -> float:
        """Share of the most frequent class: what a constant answer scores."""
        return float(np.bincount(self.labels).max() / len(self.labels))


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    png.write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state: title, panels in rows of four at most, and below them the classes."""
    from matplotlib.figure import Figure as NewFigure

    rows = -(-len(picture.panels) // _MOST_COLUMNS)
    columns = -(-len(picture.panels) // rows)
    width = max(2 * _MARGIN + columns * (_PANEL + _GAP) - _GAP, _NARROWEST)
    title = textwrap.wrap(f"t-SNE of clip embeddings: {picture.dataset}", int((width - 2 * _MARGIN) / _TITLE_CHARACTER))
    caption = textwrap.wrap(_caption(picture), int((width - 2 * _MARGIN) / _CHARACTER))
    names = [textwrap.shorten(picture.classes[label], _LONGEST_NAME, placeholder="...") for label in picture.shown]
    names = names if len(names) <= _MOST_NAMED else []
    entry = _LEGEND_MARK + _LEGEND_CHARACTER * max(map(len, names), default=0)
    lines = -(-len(names) // max(1, int((width - 2 * _MARGIN) / entry)))
    across = -(-len(names) // max(1, lines))
    below_title = _MARGIN + _TITLE_LINE * len(title)
    top = below_title + _LINE * len(caption) + 0.1
    legend = lines * _LEGEND_LINE
    height = top + rows * (_PANEL_NAME + _PANEL) + (_MARGIN + legend if names else 0) + _MARGIN
    made = NewFigure(figsize=(width, height))
    text: dict[str, Any] = {"va": "top", "linespacing": 1.3, "parse_math": False}
    made.text(_MARGIN / width, 1 - _MARGIN / height, "\n".join(title), fontsize=10, fontweight="bold", **text)
    made.text(_MARGIN / width, 1 - below_title / height, "\n".join(caption), fontsize=7.5, color=png.FAINT, **text)
    for index, panel in enumerate(picture.panels):
        row, column = divmod(index, columns)
        left, above = _MARGIN + column * (_PANEL + _GAP), top + row * (_PANEL_NAME + _PANEL) + _PANEL_NAME
        axes = made.add_axes((left / width, 1 - (above + _PANEL) / height, _PANEL / width, _PANEL / height))
        _panel(axes, panel, picture)
    if names:
        _legend(made, names, (across, entry), legend + _MARGIN)
    return made


def style(index: int) -> tuple[str, str]:
    """Colour and marker of the class that is shown at place `index`."""
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index // len(_COLOURS) % len(_MARKERS)]


def _panel(axes: Axes, panel: Panel, picture: Picture) -> None:
    size = float(np.clip(6000 / len(picture.labels), 6, 30))
    for index, label in enumerate(picture.shown):
        colour, marker = style(index)
        x, y = panel.points[picture.labels == label].T
        axes.scatter(x, y, s=size, c=colour, marker=marker, alpha=0.85, linewidths=0.3, edgecolors="white")
    axes.set_xticks([])
    axes.set_yticks([])
    # t-SNE's axes have no meaning of their own, but its distances are the same along both
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(f"{panel.preset}\n", loc="left", fontsize=9, fontweight="bold", pad=1, parse_math=False)
    below = (
        f"{NEIGHBOURS}-neighbour accuracy {100 * panel.neighbour_accuracy:.1f} %, {textwrap.shorten(panel.weights, 34, placeholder='...')}"
    )
    axes.annotate(
        below, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=7.5, color=png.INK, parse_math=False
    )


def _legend(made: Figure, names: Sequence[str], grid: tuple[int, float], top: float) -> None:
    """The classes, line by line, in columns of one width; `top` is in inches above the figure's lower edge."""
    from matplotlib.lines import Line2D

    width, height = made.get_size_inches()
    across, entry = grid
    for index, name in enumerate(names):
        line, column = divmod(index, across)
        x, y = _MARGIN + column * entry, top - (line + 0.5) * _LEGEND_LINE
        colour, marker = style(index)
        made.add_artist(Line2D([(x + 0.06) / width], [y / height], marker=marker, color=colour, markersize=5, linestyle="none"))
        made.text((x + 0.15) / width, y / height, name, fontsize=7.5, va="center", parse_math=False)


def _caption(picture: Picture) -> str:
    unread = f" {picture.unreadable} more could not be read." if picture.unreadable else ""
    unnamed = f" {len(picture.shown)} classes are too many for a legend, and share colours." if len(picture.shown) > _MOST_NAMED else ""
    return (
        f"{len(picture.labels)} test clips of {len(picture.shown)} classes, {picture.frames} frames of {picture.resolution} x "
        f"{picture.resolution} pixels each.{unread} A point is a clip: what the method's classifier is given, in two dimensions "
        f"(perplexity {picture.perplexity:g}). Accuracy: of giving each clip the class of most of its {NEIGHBOURS} nearest, "
        f"before the reduction; giving all of them the most frequent class scores {100 * picture.majority:.1f} %.{unnamed}"
    )
