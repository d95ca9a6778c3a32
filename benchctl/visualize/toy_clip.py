"""The toy clip of MOSS, appendix A: two groups of a blue circle, a red heart and a green cube on a plain background.

The shapes of one group move horizontally, those of the other vertically, so colour tells what a shape is and motion tells which group
it belongs to. Shapes neither meet nor leave the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchctl.data.decode import Frames
from benchctl.errors import ShapeError

Outline = Literal["circle", "heart", "cube"]
Floats = npt.NDArray[np.float64]

#: where no shape is
BACKGROUND = -1
#: fewer pixels a side than this leave a shape hardly any
SMALLEST_SIZE = 32
#: samples along each side of a pixel
_SAMPLES = 4
#: of a shape, over the picture's side
_RADIUS = 0.085
#: no outline reaches further from its centre, in radii
_REACH = 1.3
#: from the first frame to the last, over the picture's side
_TRAVEL = 0.28
_GREY = np.array([128.0, 128.0, 128.0])


@dataclass(frozen=True)
class ToyShape:
    """One shape; lengths are shares of the picture's side, y grows downwards."""

    outline: Outline
    #: 0 moves horizontally, 1 vertically
    group: Literal[0, 1]
    #: centre (x, y) in the first frame and in the last
    first: tuple[float, float]
    last: tuple[float, float]

    def centre(self, frame: int, frames: int) -> Floats:
        """(x, y) in frame `frame` of `frames`."""
        share = frame / max(1, frames - 1)
        return (1 - share) * np.array(self.first) + share * np.array(self.last)


def _groups() -> tuple[ToyShape, ...]:
    rightwards: tuple[tuple[Outline, float, float], ...] = (("circle", 0.14, 0.12), ("heart", 0.14, 0.36), ("cube", 0.36, 0.24))
    upwards: tuple[tuple[Outline, float, float], ...] = (("heart", 0.64, 0.88), ("cube", 0.87, 0.88), ("circle", 0.41, 0.88))
    return (
        *(ToyShape(outline, 0, (x, y), (x + _TRAVEL, y)) for outline, x, y in rightwards),
        *(ToyShape(outline, 1, (x, y), (x, y - _TRAVEL)) for outline, x, y in upwards),
    )


SHAPES = _groups()


@dataclass(frozen=True)
class ToyClip:
    """T frames of S x S pixels."""

    #: uint8 RGB (T, S, S, 3)
    frames: Frames
    #: (T, S, S): index into `SHAPES` of what covers most of a pixel, or BACKGROUND
    owners: npt.NDArray[np.int64]

    def centre(self, shape: int, frame: int) -> tuple[int, int]:
        """The pixel (x, y) at the centre of a shape."""
        count, size = self.frames.shape[:2]
        x, y = np.floor(SHAPES[shape].centre(frame, count) * size).astype(int).tolist()
        return x, y


def toy_clip(frames: int = 8, size: int = 224) -> ToyClip:
    """Draw the clip: `frames` frames of `size` x `size` pixels.

    Raises:
        ShapeError: no frames, or fewer than 32 pixels a side.
    """
    if frames < 1 or size < SMALLEST_SIZE:
        raise ShapeError(
            f"{frames} frames of {size} pixels cannot hold the toy clip", fix=f"use 1 frame and {SMALLEST_SIZE} pixels or more"
        )
    samples = (np.arange(size * _SAMPLES) + 0.5) / (size * _SAMPLES)
    clip = np.empty((frames, size, size, 3), np.uint8)
    owners = np.full((frames, size, size), BACKGROUND, np.int64)
    for t in range(frames):
        picture = np.broadcast_to(_GREY, (len(samples), len(samples), 3)).copy()
        for index, shape in enumerate(SHAPES):
            x, y = shape.centre(t, frames)
            columns, rows = _around(x, size), _around(y, size)
            colours, inside = _drawn(
                shape.outline, (samples[None, _fine(columns)] - x) / _RADIUS, (samples[_fine(rows), None] - y) / _RADIUS
            )
            area = picture[_fine(rows), _fine(columns)]
            area[inside] = colours[inside]
            owners[t, rows, columns][_pixels(inside.astype(np.float64)) > 0.5] = index
        clip[t] = np.rint(_pixels(picture))
    return ToyClip(clip, owners)


def _around(centre: float, size: int) -> slice:
    """The pixels, of `size` along a side, that a shape may cover."""
    return slice(int(size * (centre - _REACH * _RADIUS)), int(size * (centre + _REACH * _RADIUS)) + 1)


def _fine(pixels: slice) -> slice:
    """The samples of these pixels."""
    return slice(pixels.start * _SAMPLES, pixels.stop * _SAMPLES)


def _drawn(outline: Outline, x: Floats, y: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Colours (H, W, 3) and inside (H, W) of a shape of radius 1 around the origin, y downwards."""
    x, y = np.broadcast_arrays(x, y)
    if outline == "circle":
        return np.broadcast_to([30.0, 80.0, 225.0], (*x.shape, 3)), x**2 + y**2 <= 1
    if outline == "heart":
        # the sextic (x^2 + y^2 - 1)^3 = x^2 y^3, y upwards, reaches 1.14 sideways, 1.24 up and 1 down
        a, b = 1.15 * x, 0.15 - 1.15 * y
        return np.broadcast_to([220.0, 40.0, 50.0], (*x.shape, 3)), (a**2 + b**2 - 1) ** 3 <= a**2 * b**3
    # a cube seen along its diagonal: a hexagon of three faces, each of its own shade
    half = np.sqrt(3) / 2
    inside = (np.abs(x) <= half) & (np.abs(y) + np.abs(x) / np.sqrt(3) <= 1)
    shades = np.where(y < -np.abs(x) / np.sqrt(3), 1.0, np.where(x < 0, 0.85, 0.7))
    return shades[..., None] * np.array([70.0, 215.0, 70.0]), inside


def _pixels(samples: Floats) -> Floats:
    """Means over the samples of each pixel: (H * S, W * S, ...) to (H, W, ...)."""
    height, width = (side // _SAMPLES for side in samples.shape[:2])
    pixels: Floats = samples.reshape(height, _SAMPLES, width, _SAMPLES, *samples.shape[2:]).mean(axis=(1, 3))
    return pixels
