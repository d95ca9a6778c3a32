"""The figure of point tracks: over time, by what they matter, the few that matter most, and how many those are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.data.decode import Frames
from benchctl.data.tracks import Tracks
from benchctl.visualize.png import FAINT, write
from benchctl.visualize.tracks import Saliency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: blue to red
_COLOURS = "turbo"
_INCHES = 3.2
_BINS = 20


@dataclass(frozen=True)
class Picture:
    """Everything that the figure shows."""

    clip: str
    #: uint8 RGB (H, W, 3): what tracks are drawn over
    frame: npt.NDArray[np.uint8]
    tracks: Tracks
    #: where the tracks come from
    source: str
    saliency: Saliency | None = None
    #: whose, and with which weights
    model: str = ""


def middle(frames: Frames) -> npt.NDArray[np.uint8]:
    """The frame that is drawn over."""
    frame: npt.NDArray[np.uint8] = frames[len(frames) // 2]
    return frame


def save(picture: Picture, file: Path) -> None:
    """Draw it; raises MissingError where it cannot be written."""
    write(lambda: _draw(picture), file)


def _draw(picture: Picture) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    panels = 1 if picture.saliency is None else 4
    height, width = picture.frame.shape[:2]
    figure = NewFigure(figsize=(0.4 + panels * _INCHES, 0.8 + _INCHES * height / width), layout="constrained")
    figure.suptitle(_title(picture), fontsize=9, parse_math=False)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _over_time(axes[0], picture)
    if picture.saliency is not None:
        found = picture.saliency
        _by_score(axes[1], picture, np.arange(len(found.scores)), "by saliency, blue to red")
        _by_score(axes[2], picture, found.top, f"the {len(found.top)} that matter most")
        _histogram(axes[3], found)
    return figure


def _title(picture: Picture) -> str:
    said = f"{picture.clip}: {picture.tracks.shape[1]} tracks, {picture.source}"
    if picture.saliency is None:
        return said
    found = picture.saliency
    whose = "its own answer" if found.predicted else "not its own answer"
    return f"{said}\n{picture.model}: class {found.label} of {found.classes} at {found.probability:.0%}, {whose}"


def _over_time(axes: Axes, picture: Picture) -> None:
    _frame(axes, picture, "over time, blue to red")
    colours = _colour_map()(np.linspace(0, 1, max(2, len(picture.tracks) - 1)))
    places = _pixels(picture.tracks, picture.frame)
    for t in range(len(places) - 1):
        seen = (picture.tracks[t, :, 2] > 0) & (picture.tracks[t + 1, :, 2] > 0)
        axes.plot(*places[t : t + 2, seen].transpose(2, 0, 1), color=colours[t], linewidth=1.0)
    _limit(axes, picture)


def _by_score(axes: Axes, picture: Picture, points: npt.NDArray[np.int64], title: str) -> None:
    assert picture.saliency is not None
    _frame(axes, picture, title)
    found = picture.saliency
    places = _pixels(found.tracks, picture.frame)
    # what matters most is drawn last
    for point in sorted(points.tolist(), key=lambda p: float(found.scores[p])):
        seen = np.where(found.tracks[:, point, 2:] > 0, places[:, point], np.nan)
        colour = _colour_map()(float(found.scores[point]))
        axes.plot(*seen.T, color=colour, linewidth=1.2)
        axes.plot(*places[np.flatnonzero(found.tracks[:, point, 2] > 0)[-1:], point].T, "o", color=colour, markersize=2.5)
    _limit(axes, picture)


def _histogram(axes: Axes, found: Saliency) -> None:
    axes.hist(found.scores, bins=_BINS, range=(0, 1), color="C0")
    axes.set_title(f"{int((found.scores > 0.5).sum())} of {len(found.scores)} tracks above 0.5", fontsize=8, color=FAINT)
    axes.set(xlabel="saliency", ylabel="tracks")
    axes.set_box_aspect(0.75)


def _frame(axes: Axes, picture: Picture, title: str) -> None:
    # grey, so that the colours of tracks are told from it
    axes.imshow(picture.frame.mean(-1), cmap="gray", vmin=-80, vmax=255)
    axes.set_title(title, fontsize=8, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])


def _limit(axes: Axes, picture: Picture) -> None:
    """Tracks that leave the picture do not make it smaller."""
    height, width = picture.frame.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _pixels(tracks: Tracks, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """X and y in pixels of the frame."""
    size = np.array([frame.shape[1], frame.shape[0]])
    places: npt.NDArray[np.float64] = (tracks[..., :2].astype(np.float64) + 1) / 2 * size - 0.5
    return places


def _colour_map() -> Any:
    import matplotlib

    return matplotlib.colormaps[_COLOURS]
