"""The figure of a Grad-CAM: the frames, and below them the frames in grey with the map over them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchctl.visualize import png
from benchctl.visualize.clip import Clip
from benchctl.visualize.gradcam import GradCam
from benchctl.visualize.model import LoadedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "inferno"
#: how far the map covers the frame where it is 0, and where it is largest
_COVERED = (0.15, 0.75)
#: of the luminance, per channel (ITU-R BT.601)
_LUMA = (0.299, 0.587, 0.114)

# ---- inches ----
_PICTURE, _WIDEST, _NARROWEST = 1.15, 15.0, 5.5
_GAP, _LEFT, _RIGHT, _MARGIN = 0.05, 0.72, 0.75, 0.12
_TITLE_LINE, _LINE, _FRAME_NAMES = 0.22, 0.15, 0.24
#: width of a character of the title, and of the caption
_TITLE_CHARACTER, _CHARACTER = 0.1, 0.066


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: Clip
    loaded: LoadedModel
    cam: GradCam


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    png.write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state: a row of frames, a row of maps over them, and a colour bar."""
    from matplotlib.figure import Figure as NewFigure

    frames, cam = picture.clip.frames, picture.cam
    count = len(frames)
    side = min(_PICTURE, (_WIDEST - _LEFT - _RIGHT) / count - _GAP)
    width = max(_LEFT + count * (side + _GAP) + _RIGHT, _NARROWEST)
    title = textwrap.wrap(_title(picture), int((width - 2 * _MARGIN) / _TITLE_CHARACTER))
    caption = textwrap.wrap(_caption(picture), int((width - 2 * _MARGIN) / _CHARACTER))
    below_title = _MARGIN + _TITLE_LINE * len(title)
    top = below_title + _LINE * len(caption) + _FRAME_NAMES
    height = top + 2 * (side + _GAP) + _MARGIN
    made = NewFigure(figsize=(width, height))
    # a file name may hold dollar signs, which are not formulas
    text: dict[str, Any] = {"va": "top", "linespacing": 1.3, "parse_math": False}
    made.text(_MARGIN / width, 1 - _MARGIN / height, "\n".join(title), fontsize=10, fontweight="bold", **text)
    made.text(_MARGIN / width, 1 - below_title / height, "\n".join(caption), fontsize=7.5, color=png.FAINT, **text)

    shown = cam.over(count, picture.clip.resolution)
    highest = float(shown.max()) or 1.0
    grey = np.rint(frames @ np.array(_LUMA)).astype(np.uint8)
    for row, name in enumerate(("frames", "Grad-CAM")):
        bottom = height - top - (row + 1) * (side + _GAP)
        for t in range(count):
            axes = made.add_axes(((_LEFT + t * (side + _GAP)) / width, bottom / height, side / width, side / height))
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.imshow(frames[t], interpolation="nearest")
                axes.set_title(f"{t}", fontsize=7.5, pad=3, color=png.FAINT)
                continue
            axes.imshow(grey[t], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            share = shown[t] / highest
            alpha = _COVERED[0] + (_COVERED[1] - _COVERED[0]) * share
            image = axes.imshow(share, cmap=_COLOURS, vmin=0, vmax=1, alpha=alpha, interpolation="nearest")
        made.text((_LEFT - 0.08) / width, (bottom + side / 2) / height, name, ha="right", va="center", fontsize=8)
    # a bar of its own colours: that of the image would be as transparent as its last frame
    bar = made.add_axes(((_LEFT + count * (side + _GAP) + 0.03) / width, bottom / height, 0.09 / width, side / height))
    bar.imshow(np.linspace(1, 0, 128)[:, None], cmap=image.get_cmap(), aspect="auto", extent=(0, 1, 0, 1))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.set_yticks([0, 1], ["0", "most"], fontsize=7)
    bar.tick_params(length=2, pad=2)
    return made


def _title(picture: Picture) -> str:
    return f"Grad-CAM: {picture.clip.name}, {picture.loaded.preset} ({picture.loaded.said})"


def _caption(picture: Picture) -> str:
    cam = picture.cam
    grid = " x ".join(map(str, cam.cells.shape))
    chosen = "the predicted one" if cam.predicted else "not the predicted one"
    empty = "" if cam.cells.any() else " The map is 0 everywhere: no place raises this class."
    return (
        f"Class {cam.label} of {cam.classes} ({chosen}; probability {cam.probability:.3f}). Features: {cam.layer}, "
        f"{grid} (frames x rows x columns). One scale for all frames.{empty}"
    )
