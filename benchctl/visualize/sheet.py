"""What figures with a column for each frame have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.visualize.png import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# ---- inches ----
_PICTURE = 1.3
#: a figure is not wider than this: many frames are drawn smaller
_WIDEST = 15.0
_GAP = 0.05
_LEFT, _RIGHT, _BOTTOM = 1.25, 0.6, 0.12
_MARGIN, _TITLE_LINE, _LINE, _FRAME_NAMES = 0.12, 0.22, 0.15, 0.24
#: from one row to the next at least, however small its pictures are: a name, and two lines below it
_ROW_TEXT = 0.4
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
        self._step = max(self.side + _GAP, _ROW_TEXT)
        self._height = top + rows * self._step + _BOTTOM
        self.figure: Figure = NewFigure(figsize=(self._width, self._height))
        # a file name may hold dollar signs, which are not formulas
        text: dict[str, Any] = {"x": _MARGIN / self._width, "va": "top", "linespacing": 1.3, "parse_math": False}
        self.figure.text(y=1 - _MARGIN / self._height, s="\n".join(title_lines), fontsize=10, fontweight="bold", **text)
        self.figure.text(y=1 - below_title / self._height, s="\n".join(lines), fontsize=7.5, color=FAINT, **text)
        self._next = self._height - top
        self._bottom = self._next

    def row(self, name: str, below: str = "") -> list[Axes]:
        """Axes of the next row, without ticks, with its name and more about it on its left."""
        self._bottom = self._next - self.side
        row = [self._axes(_LEFT + column * (self.side + _GAP), self._bottom, self.side) for column in range(self.columns)]
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
        text: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "parse_math": False}
        row[0].annotate(name, (0, 0.5), (-6, 2), va="bottom", fontsize=7.5, **text)
        row[0].annotate(below, (0, 0.5), (-6, 0), va="top", fontsize=6.5, color=FAINT, linespacing=1.4, **text)
        self._next -= self._step
        return row

    def frames_row(self, frames: npt.NDArray[np.uint8], below: str = "") -> list[Axes]:
        """A row of the frames, uint8 (T, R, R, 3), and more about them on their left; their numbers where there is no row above."""
        numbered = not self.figure.axes
        row = self.row("frames", below)
        for t, (axes, frame) in enumerate(zip(row, frames)):
            axes.imshow(frame, interpolation="antialiased")
            if numbered:
                axes.set_title(f"frame {t}" if self.side > 0.6 else str(t), fontsize=7, pad=2.5, color=FAINT)
        return row

    def beside(self) -> Axes:
        """Narrow axes at the right end of the last row, for a scale."""
        return self._axes(_LEFT + self.columns * (self.side + _GAP) + 0.03, self._bottom, 0.09)

    def _axes(self, left: float, bottom: float, width: float) -> Axes:
        return self.figure.add_axes((left / self._width, bottom / self._height, width / self._width, self.side / self._height))
