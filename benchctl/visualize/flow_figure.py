"""The figure of optical flow: arrows on frames, and on colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchctl.visualize.clip import Clip
from benchctl.visualize.flow import EstimatedFlow, Floats, arrows, colours, longest, magnification
from benchctl.visualize.png import FAINT, INK, write
from benchctl.visualize.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: arrows along each side of a frame
_ARROWS = 14


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
    write(lambda: figure(picture), file)


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
