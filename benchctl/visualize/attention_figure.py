"""The figure of attention: a row of frames, then a row of heatmaps over them for each method, or for each of its sides or layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchctl.visualize.attention import AttentionMaps
from benchctl.visualize.flow import magnification
from benchctl.visualize.flow_figure import draw_arrows, grid_step, length_words
from benchctl.visualize.png import FAINT, INK, write
from benchctl.visualize.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: how much of a heatmap covers the frame under it
_COVER = 0.6
_COLOURS = "turbo"
_EMPTY = "#f1f1f1"
#: of red, green and blue (ITU-R BT.601): frames under heatmaps are grey, so that all colour is attention
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: str
    #: at least one; all of as many frames
    maps: tuple[AttentionMaps, ...]


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state."""
    # methods that are given other frames than the one before have them above their maps
    fresh = [i == 0 or not np.array_equal(maps.given, picture.maps[i - 1].given) for i, maps in enumerate(picture.maps)]
    sheet = Sheet(len(picture.maps[0].given), sum(fresh) + len(fresh), f"Attention: {picture.clip}", _caption(picture))
    for maps, frames_first in zip(picture.maps, fresh):
        if frames_first:
            sheet.frames_row(maps.given, f"grids of {maps.grid} x {maps.grid}" if maps.grid > 1 else "")
        low, high = (f"{value:.3g}" for value in (maps.cells.min(), maps.cells.max()))
        row = sheet.row(maps.method, "\n".join(filter(None, (maps.layer, maps.side, f"{low} to {high}"))))
        _maps_row(row, maps)
        _scale(sheet)
    return sheet.figure


def _maps_row(row: Sequence[Axes], maps: AttentionMaps) -> None:
    factor = _factor(maps)
    heat = maps.over()
    for t, (axes, frame) in enumerate(zip(row, maps.given)):
        unit = t // maps.span
        if unit >= len(heat):
            axes.set_facecolor(_EMPTY)
            axes.text(0.5, 0.5, "no flow\nleaves it", ha="center", va="center", fontsize=6, color=FAINT, transform=axes.transAxes)
            continue
        axes.imshow(frame @ _LUMA, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        axes.imshow(heat[unit], cmap=_COLOURS, vmin=0, vmax=1, alpha=_COVER, interpolation="antialiased")
        if maps.flow is not None and factor:
            draw_arrows(axes, maps.flow[unit], factor, "white", INK)


def _factor(maps: AttentionMaps) -> int | None:
    """How many times as long as the motion its arrows are; None: there are no arrows."""
    return None if maps.flow is None else magnification(maps.flow, grid_step(maps.resolution))


def _scale(sheet: Sheet) -> None:
    """The scale of the last row, with the colours as they look over a grey frame."""
    from matplotlib import colormaps

    ramp = colormaps[_COLOURS](np.linspace(0, 1, 64))[:, None, :3]
    axes = sheet.beside()
    axes.imshow(_COVER * ramp + (1 - _COVER) * 0.5, origin="lower", aspect="auto", extent=(0, 1, 0, 1), interpolation="bilinear")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, 1], ["lowest", "highest"])
    axes.tick_params(labelsize=6, length=2, width=0.5, pad=1.5)
    # inside the row: the next one has a scale too
    low, high = axes.get_yticklabels()
    low.set_verticalalignment("bottom")
    high.set_verticalalignment("top")


def _caption(picture: Picture) -> list[str]:
    said = [
        "Attention weights, mean over heads. Each map is coloured from its own lowest weight to its own highest; the range over all maps "
        "of a row stands on its left."
    ]
    for maps in picture.maps:
        factor = _factor(maps)
        arrows = f" Arrows: the flow that it sees, by {maps.estimator}, {length_words(factor)}." if factor else ""
        name = f"{maps.method} {maps.side}".strip()
        said.append(f"{name} ({maps.weights}): {maps.meaning}.{arrows}")
    # once for all layers of a method
    return list(dict.fromkeys(said))
