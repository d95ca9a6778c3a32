"""Point tracks of a video: where a few points on its surfaces are in every frame.

Tracks are float32 (F, N, 3) for all F frames of a video: x and y from -1 (left and top edge) to 1, and 1 where the point is visible,
else 0.

Which points are tracked. The MovT paper takes points inside a segmentation of whoever acts, which needs a detector and a segmenter. Here
points are corners (Shi and Tomasi 1994), found in three frames, the middle ones of the clip's thirds, so that what comes later is found
too, and tracked from there to both ends. They are stored in the order of how far they move against the dominant motion, the median of
the visible points from each frame to the next: the first N are those that move most by themselves, whoever holds the camera.

A point that is lost stays lost: invisible from there on, at its last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchctl.data.decode import Frames
from benchctl.errors import ClipUnreadable, MissingError
from benchctl.folders import weights_folder
from benchctl.spec import TrackEstimatorName

Tracks = npt.NDArray[np.float32]
Points = npt.NDArray[np.float32]

#: part of a set's name: tracks that were made otherwise are others
SETTINGS_VERSION = 1
#: points of a video, at most
POINTS = 128
#: frames in which points are looked for
QUERY_FRAMES = 3
#: forward and back again, a point may miss itself by so many pixels: a pixel is what corners are localised to
FORWARD_BACKWARD_PIXELS = 1.0
#: of Lucas-Kanade: side of its window, levels of its pyramid; a point may then move by some 60 pixels a frame
_WINDOW, _LEVELS = 15, 3
#: of corners: share of the best one's strength, and distance over the frame's short side
_QUALITY, _DISTANCE = 0.01, 1 / 24
#: where CoTracker3's weights are looked for, under $BENCHCTL_WEIGHTS
COTRACKER_WEIGHTS = Path("facebook/cotracker3/scaled_offline.pth")


def estimate(frames: Frames, estimator: TrackEstimatorName) -> Tracks:
    """Tracks of a video, uint8 RGB (F, H, W, 3), by `estimator`: (F, N, 3).

    Raises:
        ClipUnreadable: no point was found, or all were lost at once.
        MissingError: CoTracker3 or its weights are not there.
    """
    grey = greys(frames)
    queries = corners(grey)
    if not queries:
        raise ClipUnreadable("no point to track was found: no frame has a corner")
    found = lucas_kanade(grey, queries) if estimator == "lucas-kanade" else cotracker(frames, queries)
    if len(frames) > 1 and not (found[1:, :, 2] * found[:-1, :, 2]).any():
        raise ClipUnreadable(f"all {found.shape[1]} points were lost: none is seen in two frames after each other")
    return scaled(by_own_motion(found), frames.shape[1], frames.shape[2])


def greys(frames: Frames) -> npt.NDArray[np.uint8]:
    """uint8 (F, H, W)."""
    import cv2

    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def corners(grey: npt.NDArray[np.uint8], points: int = POINTS) -> list[tuple[int, Points]]:
    """Frames that points are looked for in, and the points (n, 2) as x, y in pixels that were found there, the strongest first."""
    import cv2

    count = min(QUERY_FRAMES, len(grey))
    found: list[tuple[int, Points]] = []
    for query in range(count):
        frame = (2 * query + 1) * len(grey) // (2 * count)
        distance = max(1.0, _DISTANCE * min(grey.shape[1:]))
        best = cv2.goodFeaturesToTrack(grey[frame], maxCorners=points // count, qualityLevel=_QUALITY, minDistance=distance)
        if best is not None and len(best):
            found.append((frame, best.reshape(-1, 2).astype(np.float32)))
    return found


def lucas_kanade(grey: npt.NDArray[np.uint8], queries: Sequence[tuple[int, Points]]) -> Tracks:
    """Pyramidal Lucas-Kanade (Bouguet 2001) from each query frame to both ends of the clip: (F, N, 3), in pixels.

    A point is lost where it leaves the frame, or where, tracked back again, it misses where it came from.
    """
    parts = []
    for frame, points in queries:
        tracks = np.zeros((len(grey), len(points), 3), np.float32)
        tracks[frame] = np.concatenate([points, np.ones((len(points), 1), np.float32)], axis=1)
        for way in (range(frame, len(grey)), range(frame, -1, -1)):
            for before, after in pairwise(way):
                tracks[after] = _one_step(grey[before], grey[after], tracks[before])
        parts.append(tracks)
    return np.concatenate(parts, axis=1)


def _one_step(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], tracks_N3: Tracks) -> Tracks:
    """Where points that are visible in `before` are in `after`; the others stay."""
    import cv2

    moved = tracks_N3.copy()
    visible = np.flatnonzero(tracks_N3[:, 2] > 0)
    if not len(visible):
        return moved
    start = np.ascontiguousarray(tracks_N3[visible, None, :2])
    options: Any = {"nextPts": None, "winSize": (_WINDOW, _WINDOW), "maxLevel": _LEVELS}
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, **options)
    there, missed = there[:, 0], np.linalg.norm(back[:, 0] - start[:, 0], axis=1)
    height, width = after.shape
    inside = np.all((there >= -0.5) & (there < np.array([width, height]) - 0.5), axis=1)
    kept = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (missed <= FORWARD_BACKWARD_PIXELS) & inside
    moved[visible[kept], :2] = there[kept]
    moved[visible[~kept], 2] = 0
    return moved


def cotracker(frames: Frames, queries: Sequence[tuple[int, Points]]) -> Tracks:
    """CoTracker3, offline (Karaev et al. 2024), for the same queries: (F, N, 3), in pixels.

    It is called as its authors' package documents it; it was tested against a stand-in only.

    Raises:
        MissingError: the package or its weights are not there.
    """
    missing = cotracker_missing()
    if missing:
        raise MissingError(missing, fix="or use the estimator lucas-kanade")
    import torch
    from cotracker.predictor import CoTrackerPredictor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = CoTrackerPredictor(checkpoint=str(_cotracker_file())).to(device)
    video_1TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float().to(device)
    asked = [np.concatenate([np.full((len(points), 1), frame, np.float32), points], axis=1) for frame, points in queries]
    with torch.inference_mode():
        places, visible = predictor(video_1TCHW, queries=torch.from_numpy(np.concatenate(asked))[None].to(device), backward_tracking=True)
    return np.concatenate([places[0].float().cpu().numpy(), visible[0].float().cpu().numpy()[..., None]], axis=2)


def cotracker_missing() -> str | None:
    """What CoTracker3 lacks here, in one line; None: nothing."""
    import importlib.util

    if importlib.util.find_spec("cotracker") is None:
        return "the package cotracker is not installed (github.com/facebookresearch/co-tracker)"
    file = _cotracker_file()
    return None if file is not None and file.is_file() else f"put CoTracker3's weights at $BENCHCTL_WEIGHTS/{COTRACKER_WEIGHTS}"


def _cotracker_file() -> Path | None:
    folder = weights_folder()
    return folder / COTRACKER_WEIGHTS if folder else None


def by_own_motion(tracks_FN3: Tracks) -> Tracks:
    """The points in the order of how far they move against the dominant motion, the farthest first."""
    both = (tracks_FN3[1:, :, 2] > 0) & (tracks_FN3[:-1, :, 2] > 0)
    steps = np.where(both[..., None], np.diff(tracks_FN3[..., :2], axis=0), np.nan).astype(np.float64)
    own = np.zeros(tracks_FN3.shape[1])
    for step in steps:
        seen = ~np.isnan(step[:, 0])
        if seen.any():
            own[seen] += np.linalg.norm(step[seen] - np.median(step[seen], axis=0), axis=1)
    return tracks_FN3[:, np.argsort(-own, kind="stable")]


def scaled(tracks_FN3: Any, height: int, width: int) -> Tracks:
    """X and y from pixels, whose centres have whole numbers, to -1 ... 1 from edge to edge."""
    tracks = np.asarray(tracks_FN3, np.float32).copy()
    tracks[..., :2] = (tracks[..., :2] + 0.5) / np.array([width, height], np.float32) * 2 - 1
    return tracks
