"""The figure of reconstructions: a row of what a model is given, then for each mask ratio what it sees of it and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchctl.visualize.png import write
from benchctl.visualize.reconstruction import Floats, Rebuilt
from benchctl.visualize.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: of what is hidden: a grey that videos seldom have
_SHADE = 0.93


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: str
    #: at least one, each with at least one mask ratio; all of as many frames
    models: tuple[Rebuilt, ...]


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state."""
    frames = len(picture.models[0].at[0].given)
    rows = sum(1 + 2 * len(model.at) for model in picture.models)
    sheet = Sheet(frames, rows, f"Reconstruction: {picture.clip}", _caption(picture))
    for number, model in enumerate(picture.models, 1):
        which = f"model {number}" if len(picture.models) > 1 else ""
        _row(sheet, "given", which, model.at[0].given)
        for each in model.at:
            hidden, all_tubes = each.tubes
            masked = np.where(each.hidden[..., None], np.float32(_SHADE), each.given)
            _row(sheet, "masked", f"{hidden} of {all_tubes}\npatches ({hidden / all_tubes:.0%})", masked)
            _row(sheet, "rebuilt", f"error {each.error:.3g}\nmeans {each.error_of_means:.3g}", each.rebuilt)
    return sheet.figure


def _row(sheet: Sheet, name: str, below: str, frames: Floats) -> None:
    pixels: npt.NDArray[np.uint8] = np.rint(255 * frames.clip(0, 1)).astype(np.uint8)
    for axes, frame in zip(sheet.row(name, below), pixels):
        axes.imshow(frame, interpolation="antialiased")


def _caption(picture: Picture) -> list[str]:
    said = [
        "Masked: the same patches at all times are hidden (light grey). Rebuilt: each hidden patch has the structure that the model gives "
        "it, and its own mean and standard deviation, which the model is not asked for. Error: mean squared error over the hidden pixels, "
        "of colours from 0 to 1; means: that of each hidden patch's own mean colour."
    ]
    several = len(picture.models) > 1
    return said + [f"{f'Model {n}: ' if several else ''}{model.method} ({model.weights})." for n, model in enumerate(picture.models, 1)]
