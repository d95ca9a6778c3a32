"""Optical flow as it is shown: colours that say direction and length, and arrows on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchctl.data.decode import Frames
from benchctl.errors import ShapeError, UsageError
from benchctl.layers.flow import FlowEstimator, check_shape
from benchctl.layers.pretrained import RANDOM
from benchctl.spec import FlowEstimatorName

# T frames of H x W pixels; flow is (x, y) in pixels to the next frame, x to the right and y downwards

Floats = npt.NDArray[np.float32]

#: share of the pixels whose flow is no longer than where the colours end; the few above are mostly mistakes at outlines
_SPANNED = 0.99
#: share of them whose arrow is no longer than a step of the grid, about
_FITTING = 0.9
#: nothing shorter is called a motion, in pixels
SHORTEST = 0.1
#: arrows are drawn longer by one of these factors
_FACTORS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class EstimatedFlow:
    """Flow of one clip."""

    #: the estimator and its weights, as the figure says it
    said: str
    #: (T - 1, 2, H, W)
    flow: Floats


@dataclass(frozen=True)
class Arrows:
    """Flow at points of a regular grid; each array has one number per point."""

    x: Floats
    y: Floats
    along_x: Floats
    along_y: Floats


def estimate(frames: Frames, name: FlowEstimatorName, weights: str | None = None) -> EstimatedFlow:
    """Flow from each of uint8 RGB `frames` (T, H, W, 3) to the next.

    Raises:
        UsageError: frames that are too few or too small, or weights that the estimator does not have.
        WeightsMissing: its weights cannot be had.
    """
    try:
        check_shape(name, len(frames), min(frames.shape[1:3]))
    except ShapeError as error:
        where = "--frames" if len(frames) < 2 else f"--resolution {min(frames.shape[1:3])}"
        raise UsageError(error.what, where=where, fix=error.fix) from None
    try:
        estimator = FlowEstimator(name, weights=weights)
    except UsageError as error:
        raise UsageError(error.what, where=f"--weights {weights}", fix=error.fix) from None
    pixels_BTCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
    flow: Floats = estimator(pixels_BTCHW)[0].numpy()
    return EstimatedFlow(estimator_words(estimator), flow)


def estimator_words(estimator: FlowEstimator) -> str:
    """The estimator and its weights, as a figure says it."""
    if estimator.weights == RANDOM:
        return f"{estimator.name} with random weights"
    return estimator.weights or estimator.name


def longest(flow_T2HW: Floats) -> float:
    """Where the colours for this flow end, in pixels: nearly all of it is shorter. At least `SHORTEST`."""
    return _quantile(flow_T2HW, _SPANNED)


def colours(flow_2HW: Floats, scale: float) -> Floats:
    """RGB (H, W, 3), 0 ... 1, of one frame's flow.

    The hue is the direction, from red for rightwards over yellow-green for downwards; the saturation is the length, white for none and
    full from `scale` pixels on.
    """
    hue = np.arctan2(flow_2HW[1], flow_2HW[0]) / (2 * np.pi) % 1
    saturation = np.minimum(np.hypot(flow_2HW[0], flow_2HW[1]) / scale, 1)
    # how far each channel's place on the wheel is from the hue: none of it within a sixth, all of it beyond two
    turns = (np.array([5, 3, 1])[:, None, None] + 6 * hue) % 6
    missing = np.clip(np.minimum(turns, 4 - turns), 0, 1)
    found: Floats = np.moveaxis(1 - saturation * missing, 0, -1).astype(np.float32)
    return found


def arrows(flow_2HW: Floats, step: int) -> Arrows:
    """The flow at the centre of every square of `step` x `step` pixels, where it is not shorter than `SHORTEST`."""
    height, width = flow_2HW.shape[1:]
    y, x = (grid.ravel() for grid in np.meshgrid(*(np.arange(step // 2, side, step) for side in (height, width)), indexing="ij"))
    along_x, along_y = flow_2HW[:, y, x]
    moves = np.hypot(along_x, along_y) >= SHORTEST
    return Arrows(x[moves].astype(np.float32), y[moves].astype(np.float32), along_x[moves], along_y[moves])


def magnification(flow_T2HW: Floats, step: int) -> int:
    """How many times as long as the motion arrows are drawn, so that long ones about reach the next point of the grid."""
    return min(_FACTORS, key=lambda factor: abs(np.log(factor * _quantile(flow_T2HW, _FITTING) / (1.2 * step))))


def _quantile(flow_T2HW: Floats, share: float) -> float:
    return max(float(np.quantile(np.hypot(flow_T2HW[:, 0], flow_T2HW[:, 1]), share)), SHORTEST)
