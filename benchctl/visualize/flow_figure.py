"""The figure of optical flow, and what it has in common with other figures that have a column per frame."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.atomic_file import replacing
from benchctl.errors import MissingError
from benchctl.visualize.clip import Clip
from benchctl.visualize.flow import EstimatedFlow, Floats, arrows, colours, longest, magnification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, EMPTY = "#222222", "#6b6b6b", "#f1f1f1"
_SETTINGS = {"font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "axes.edgecolor": FAINT, "axes.linewidth": 0.5}
_DOTS_PER_INCH = 200
#: arrows along each side of a frame
_ARROWS = 14

# ---- inches ----
_PICTURE = 1.3
#: a figure is not wider than this: many frames are drawn smaller
_WIDEST = 15.0
_GAP = 0.05
_LEFT, _RIGHT, _BOTTOM = 1.25, 0.6, 0.12
_MARGIN, _TITLE_LINE, _LINE, _FRAME_NAMES = 0.12, 0.22, 0.15, 0.24
#: width of a character of the title, and of the caption
_TITLE_CHARACTER, _CHARACTER = 0.1, 0.066


class Sheet:
    """A figure with a title, a caption and rows of square pictures, one for each frame; outside of matplotlib's global state.

    Args:
        columns: pictures in a row.
        rows: how many there will be.
        title: above all.
        caption: paragraphs below the title; all are broken into lines.
    """

    def __init__(self, columns: int, rows: int, title: str, caption: Sequence[str]) -> None:
        from matplotlib.figure import Figure as NewFigure

        self.columns = columns
        #: of a picture, in inches
        self.side = min(_PICTURE, (_WIDEST - _LEFT - _RIGHT) / columns - _GAP)
        self._width = max(_LEFT + columns * (self.side + _GAP) + _RIGHT, 6.0)
        title_lines = textwrap.wrap(title, int((self._width - 0.3) / _TITLE_CHARACTER))
        lines = [line for paragraph in caption for line in textwrap.wrap(paragraph, int((self._width - 0.3) / _CHARACTER))]
        below_title = _MARGIN + _TITLE_LINE * len(title_lines)
        top = below_title + _LINE * len(lines) + _FRAME_NAMES
        self._height = top + rows * (self.side + _GAP) + _BOTTOM
        self.figure: Figure = NewFigure(figsize=(self._width, self._height))
        # a file name may hold dollar signs, which are not formulas
        text: dict[str, Any] = {"x": _MARGIN / self._width, "va": "top", "linespacing": 1.3, "parse_math": False}
        self.figure.text(y=1 - _MARGIN / self._height, s="\n".join(title_lines), fontsize=10, fontweight="bold", **text)
        self.figure.text(y=1 - below_title / self._height, s="\n".join(lines), fontsize=7.5, color=FAINT, **text)
        self._next = self._height - top

    def row(self, name: str, below: str = "") -> list[Axes]:
        """Axes of the next row, without ticks, with its name and more about it on its left."""
        bottom = self._next - self.side
        row = [self._axes(_LEFT + column * (self.side + _GAP), bottom, self.side) for column in range(self.columns)]
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
        text: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "parse_math": False}
        row[0].annotate(name, (0, 0.5), (-6, 2), va="bottom", fontsize=7.5, **text)
        row[0].annotate(below, (0, 0.5), (-6, 0), va="top", fontsize=6.5, color=FAINT, linespacing=1.4, **text)
        self._next = bottom - _GAP
        return row

    def frames_row(self, frames: npt.NDArray[np.uint8]) -> list[Axes]:
        """A row of the frames, uint8 (T, R, R, 3), with their numbers."""
        row = self.row("frames")
        for t, (axes, frame) in enumerate(zip(row, frames)):
            axes.imshow(frame, interpolation="antialiased")
            axes.set_title(f"frame {t}" if self.side > 0.6 else str(t), fontsize=7, pad=2.5, color=FAINT)
        return row

    def beside(self) -> Axes:
        """Narrow axes at the right end of the last row, for a scale."""
        return self._axes(_LEFT + self.columns * (self.side + _GAP) + 0.03, self._next + _GAP, 0.09)

    def _axes(self, left: float, bottom: float, width: float) -> Axes:
        return self.figure.add_axes((left / self._width, bottom / self._height, width / self._width, self.side / self._height))


def settings() -> Any:
    """A context in which matplotlib has this project's settings: the user's have no part in a figure."""
    import matplotlib

    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS})


def write(made: Figure, file: Path) -> None:
    """Write a figure to `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    try:
        with replacing(file) as whole:
            made.savefig(whole, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    except OSError as problem:
        raise MissingError(f"cannot be written: {problem.strerror}", where=str(file), fix="name a file elsewhere") from None


def grid_step(resolution: int) -> int:
    """Pixels from one arrow to the next, in frames of `resolution` pixels a side."""
    return max(1, round(resolution / _ARROWS))


def draw_arrows(axes: Axes, flow_2RR: Floats, factor: float, colour: str, edge: str) -> None:
    """Put arrows of the flow on what `axes` show of R x R pixels, `factor` times as long as the motion."""
    resolution = flow_2RR.shape[1]
    found = arrows(flow_2RR, grid_step(resolution))
    style: dict[str, Any] = {"color": colour, "edgecolor": edge, "linewidth": 0.35, "width": 0.009, "headwidth": 3.6, "headlength": 4.2}
    axes.quiver(
        found.x,
        found.y,
        found.along_x,
        found.along_y,
        angles="xy",
        scale_units="xy",
        units="width",
        scale=1 / factor,
        minlength=0.5,
        **style,
    )
    axes.set_xlim(-0.5, resolution - 0.5)
    axes.set_ylim(resolution - 0.5, -0.5)


def length_words(factor: int) -> str:
    """How long arrows are."""
    return f"{factor} times as long as the motion" if factor > 1 else "as long as the motion"


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: Clip
    flow: EstimatedFlow


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    with settings():
        write(figure(picture), file)


def figure(picture: Picture) -> Figure:
    """Two rows: frames with arrows, and flow in colours with arrows, then the key to the colours."""
    clip, flow = picture.clip, picture.flow.flow
    scale = longest(flow)
    factor = magnification(flow, grid_step(clip.resolution))
    caption = (
        f"Flow from each frame to the next, in pixels of {clip.resolution} x {clip.resolution}. "
        "Where nothing can be matched, on a plain background, it is filled in from around.",
        f"Arrows, every {grid_step(clip.resolution)} pixels: {length_words(factor)}. Colours: hue is the direction, saturation the length, "
        f"white for none and full from {scale:.1f} pixels on, as in the key.",
    )
    sheet = Sheet(len(clip.frames), 2, f"Optical flow: {clip.name}, estimator {picture.flow.said}", caption)
    for axes, each in zip(sheet.frames_row(clip.frames), flow):
        draw_arrows(axes, each, factor, "white", INK)
    row = sheet.row("flow", "to the next frame")
    for axes, each in zip(row, flow):
        axes.imshow(colours(each, scale), interpolation="antialiased")
        draw_arrows(axes, each, factor, INK, INK)
    _key(row[-1], scale)
    return sheet.figure


def _key(axes: Axes, scale: float) -> None:
    """The colours of every direction and length up to `scale` pixels."""
    reach = np.linspace(-1.3, 1.3, 131, dtype=np.float32)
    x, y = np.meshgrid(reach, reach)
    disc = colours(np.stack([x, y]) * scale, scale)
    disc[np.hypot(x, y) > 1] = 1
    axes.imshow(disc, extent=(-1.3, 1.3, 1.3, -1.3), interpolation="antialiased")
    axes.annotate("", (1, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0})
    axes.text(0, -1.26, "key", ha="center", va="top", fontsize=6, color=FAINT)
    axes.text(0, 1.26, f"radius {scale:.1f} px", ha="center", va="bottom", fontsize=6)
