"""The figure of feature maps: for each model a row of what it is given, and below it a row for each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.visualize.features import FeatureMap, Features
from benchctl.visualize.png import write
from benchctl.visualize.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "viridis"


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: str
    #: at least one; all of as many frames
    models: tuple[Features, ...]


def save(picture: Picture, file: Path) -> None:
    """Draw `picture` into `file`, a png; the file is whole or absent.

    Raises:
        MissingError: it cannot be written.
    """
    write(lambda: figure(picture), file)


def figure(picture: Picture) -> Figure:
    """The figure, outside of matplotlib's global state."""
    rows = sum(1 + len(model.maps) for model in picture.models)
    frames = len(picture.models[0].given)
    sheet = Sheet(frames, rows, f"Feature maps: {picture.clip}", _caption(picture))
    for number, model in enumerate(picture.models, 1):
        sheet.frames_row(model.given, f"given to {number}" if len(picture.models) > 1 else "")
        for maps in model.maps:
            _maps_row(sheet, maps, frames)
    return sheet.figure


def _maps_row(sheet: Sheet, maps: FeatureMap, frames: int) -> None:
    low, high = float(maps.cells.min()), float(maps.cells.max())
    size = " x ".join(map(str, maps.cells.shape[1:]))
    row = sheet.row(_short(maps.layer), f"{size}, channel {maps.channel}\nof {maps.channels}")
    for t, axes in enumerate(row):
        shown = axes.imshow(maps.cells[maps.unit(t, frames)], cmap=_COLOURS, vmin=low, vmax=high, interpolation="nearest")
    scale = sheet.beside()
    scale.figure.colorbar(shown, cax=scale)
    scale.set_yticks([low, high], [f"{low:.2g}", f"{high:.2g}"] if high > low else [f"{low:.2g}", ""])
    scale.tick_params(labelsize=6, length=2, width=0.5, pad=1.5)
    lowest, highest = scale.get_yticklabels()
    # inside the row: the next one has a scale too
    lowest.set_verticalalignment("bottom")
    highest.set_verticalalignment("top")


def _short(layer: str) -> str:
    """The end of a layer's name, as long as fits beside a row."""
    parts = layer.split(".")
    while len(parts) > 1 and len(".".join(parts)) > 18:
        parts = parts[1:]
    return ".".join(parts)


def _caption(picture: Picture) -> list[str]:
    said = [
        "One channel of each convolution, the one that differs most over the clip (standard deviation), before any normalisation. One "
        "scale for all frames of a row, from the lowest value to the highest."
    ]
    several = len(picture.models) > 1
    for number, model in enumerate(picture.models, 1):
        name = f"{number}: {model.method}" if several else model.method
        layers = ", ".join(maps.layer for maps in model.maps)
        said.append(f"{name} ({model.weights}): {layers}.")
    return said
