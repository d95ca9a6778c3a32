"""Point tracks of the frames that a view is made of: read from files that were made beforehand, or exact from the data set itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchctl import lookup
from benchctl.data.clip_set import ClipRecord
from benchctl.data.content_files import digest_of, listed, typed_command
from benchctl.data.sampling import Indices
from benchctl.data.track_files import TrackSet
from benchctl.data.tracks import Tracks
from benchctl.errors import ClipUnreadable, DataMissing
from benchctl.folders import tracks_folder
from benchctl.spec import ClipTracks, DatasetRef, TrackEstimatorName

#: to train, N points are drawn from the first `_DRAWN_FROM` x N: those that move most by themselves come first
_DRAWN_FROM = 2
#: clips whose tracks a process keeps in memory, some 50 kB each
_KEPT = 4096


@dataclass(frozen=True)
class PrecomputedTracks:
    """Tracks from files."""

    frames: int
    points: int
    estimator: TrackEstimatorName
    dataset: DatasetRef
    track_set: TrackSet

    @property
    def description(self) -> str:
        """Where they come from, for the result."""
        return f"precomputed by {self.estimator}"

    def require(self, clips: Sequence[ClipRecord]) -> None:
        """Raise DataMissing where some of `clips` have no tracks; it says with which command they get them."""
        missing = self.track_set.missing(clips)
        if missing:
            command = typed_command("tracks", self.dataset, ["--estimator", self.estimator])
            what = f"{missing} of {len(clips)} clips have no tracks ({self.estimator}) under {self.track_set.folder}"
            raise DataMissing(what, fix=f"run '{command}'")

    def length(self, clip: ClipRecord) -> int:
        """Frames of the clip; raises ClipUnreadable where it has no tracks."""
        return len(self._all(clip))

    def read(self, clip: ClipRecord, indices: Indices, rng: np.random.Generator | None) -> Tracks:
        """float32 (T', N, 3) at the frames `indices` (T',): x and y from -1 to 1, and 1 where visible, else 0.

        Args:
            clip: the clip.
            indices: as sampling gives them.
            rng: draws N of the first 2 N points, to train; None: the first N, to test. Where fewer are there, they are repeated.

        Raises:
            ClipUnreadable: it has no tracks.
        """
        return chosen(self._all(clip)[indices], self.points, rng)

    def _all(self, clip: ClipRecord) -> Tracks:
        digest = digest_of(clip.path)
        file = self.track_set.file(digest)
        try:
            return _load(file)
        except (OSError, ValueError, EOFError) as error:
            note = self.track_set.note(digest)
            reason = note.read_text(encoding="utf-8") if note.is_file() else f"{type(error).__name__} on {file}"
            raise ClipUnreadable(f"it has no tracks: {reason}", where=str(clip.path)) from None


@lru_cache(maxsize=_KEPT)
def _load(file: Path) -> Tracks:
    found: Tracks = np.load(file)
    if found.ndim != 3 or found.shape[2] != 3:
        raise ValueError(f"tracks of shape {found.shape}")
    return found


@dataclass(frozen=True)
class ExactTracks:
    """Tracks that a data set carries."""

    frames: int
    points: int
    dataset: DatasetRef

    @property
    def description(self) -> str:
        """Where they come from, for the result."""
        return f"exact, from {self.dataset.name}"

    def require(self, _clips: Sequence[ClipRecord]) -> None:
        """Nothing: the plan has seen that the data set carries them."""

    def length(self, clip: ClipRecord) -> int:
        """As `PrecomputedTracks.length`."""
        return len(_exact(self.dataset.name, clip))

    def read(self, clip: ClipRecord, indices: Indices, rng: np.random.Generator | None) -> Tracks:
        """As `PrecomputedTracks.read`."""
        return chosen(_exact(self.dataset.name, clip)[indices], self.points, rng)


@lru_cache(maxsize=_KEPT)
def _exact(dataset: str, clip: ClipRecord) -> Tracks:
    module: Any = lookup.load("dataset", dataset)
    return np.asarray(module.exact_tracks(clip), np.float32)


TrackSource: TypeAlias = PrecomputedTracks | ExactTracks


def chosen(tracks_TN3: Tracks, points: int, rng: np.random.Generator | None) -> Tracks:
    """`points` of the tracks: drawn from the first of them, or the first; repeated in turn where there are fewer."""
    there = tracks_TN3.shape[1]
    first = min(there, _DRAWN_FROM * points) if rng is not None else min(there, points)
    order = rng.permutation(first)[:points] if rng is not None else np.arange(first)
    return np.ascontiguousarray(tracks_TN3[:, np.resize(order, points)])


def track_source(tracks: ClipTracks, dataset: DatasetRef) -> TrackSource:
    """Who gives clips of `dataset` the tracks that a method asks for."""
    if tracks.estimator == "exact":
        return ExactTracks(tracks.frames, tracks.points, dataset)
    track_set = TrackSet(tracks_folder(), tracks.estimator)
    return PrecomputedTracks(tracks.frames, tracks.points, tracks.estimator, dataset, track_set)


def check_tracks(tracks: ClipTracks, dataset: DatasetRef, root: Path) -> None:
    """Raise DataMissing where clips of the data set at `root` have no tracks."""
    located, clips = listed(dataset, root)
    track_source(tracks, located).require(clips)
