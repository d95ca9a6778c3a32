"""Which frames of a clip a network sees.

    segment   one frame from each of T equal segments (TSN, Wang et al., ECCV 2016, section 3.1)
    uniform   as segment, with SlowFast's rounding: segment i spans round(s*i) to round(s*(i+1)), s = (N-1)/T, both ends included
    dense     T frames, `stride` apart, from one start (I3D, Carreira and Zisserman, CVPR 2017, and after it SlowFast)

A clip of fewer frames than asked for repeats frames: segment and uniform spread the repetitions evenly, dense repeats the last
frame. Indices never decrease.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Sampling = Literal["segment", "uniform", "dense"]
Indices = npt.NDArray[np.int64]


def train_indices(sampling: Sampling, available: int, frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """One random view: int64 (1, frames), each in 0 ... available - 1. `stride` is read by dense sampling only."""
    _check(available, frames, stride)
    if sampling == "segment":
        return _at_segments(available, rng.random(frames))[None]
    if sampling == "uniform":
        first, last = _uniform_segments(available, frames)
        return rng.integers(first, last, endpoint=True, dtype=np.int64)[None]
    return _strided(rng.integers(_room(available, frames, stride), endpoint=True, size=1), available, frames, stride)


def eval_indices(sampling: Sampling, available: int, frames: int, stride: int, clips: int) -> Indices:
    """`clips` fixed views: int64 (clips, frames).

    Segment and uniform: view v of V takes the point (2v + 1) / 2V into each segment, for one view the middle. Dense: the starts
    are evenly spaced from the first possible one to the last, and one view is in the centre.
    """
    _check(available, frames, stride)
    if clips < 1:
        raise ValueError(f"clips must be at least 1, not {clips}")
    views = np.arange(clips, dtype=np.int64)[:, None]
    if sampling == "segment":
        return _at_segments(available, np.broadcast_to((2 * views + 1) / (2 * clips), (clips, frames)))
    if sampling == "uniform":
        first, last = _uniform_segments(available, frames)
        return first + (last - first) * (2 * views + 1) // (2 * clips)
    room = _room(available, frames, stride)
    starts = np.array([room // 2]) if clips == 1 else room * np.arange(clips) // (clips - 1)
    return _strided(starts, available, frames, stride)


def _check(available: int, frames: int, stride: int) -> None:
    if min(available, frames, stride) < 1:
        raise ValueError(f"available, frames and stride must be at least 1, not {available}, {frames} and {stride}")


def _at_segments(available: int, fraction: npt.NDArray[np.float64]) -> Indices:
    """Frame at `fraction` (0 <= fraction < 1, last axis over segments) of each segment."""
    frames = fraction.shape[-1]
    index = np.floor((np.arange(frames) + fraction) * available / frames).astype(np.int64)
    # (i + fraction) rounds up to i + 1 when the fraction is close enough to 1
    return np.minimum(index, available - 1)


def _uniform_segments(available: int, frames: int) -> tuple[Indices, Indices]:
    edges = np.round(np.arange(frames + 1) * ((available - 1) / frames)).astype(np.int64)
    return edges[:-1], edges[1:]


def _room(available: int, frames: int, stride: int) -> int:
    """Last frame at which a dense view can start."""
    return max(0, available - 1 - (frames - 1) * stride)


def _strided(starts: npt.NDArray[np.int64], available: int, frames: int, stride: int) -> Indices:
    return np.minimum(starts[:, None] + stride * np.arange(frames, dtype=np.int64), available - 1)
