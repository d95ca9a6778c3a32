"""Point tracks of the frames that a view is made of: read from files that were made beforehand, or exact from the data set itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchctl.data.clip_set import ClipRecord
from benchctl.data.sampling import Indices
from benchctl.spec import ClipTracks, DatasetRef

Tracks = npt.NDArray[np.float32]


class TrackSource(Protocol):
    """Whoever gives clips their tracks."""

    @property
    def frames(self) -> int:
        """T', frames of a view."""

    @property
    def description(self) -> str:
        """Where the tracks come from, for the result."""

    def require(self, clips: Sequence[ClipRecord]) -> None:
        """Raise DataMissing where some of `clips` have no tracks; it says with which command they get them."""

    def length(self, clip: ClipRecord) -> int:
        """Frames of the clip that are tracked: all of them.

        Raises:
            ClipUnreadable: it has no tracks.
        """

    def read(self, clip: ClipRecord, indices: Indices, rng: np.random.Generator | None) -> Tracks:
        """float32 (T', N, 3) at the frames `indices`: x and y from -1 (left, top) to 1, and 1 where visible, else 0.

        Args:
            clip: the clip.
            indices: (T',), as sampling gives them.
            rng: draws N of the points that are there, to train; None: the first N, to test. Where fewer are there, they are repeated.

        Raises:
            ClipUnreadable: it has no tracks.
        """


def track_source(tracks: ClipTracks, dataset: DatasetRef) -> TrackSource:
    """Who gives clips of `dataset` the tracks that a method asks for."""
    raise NotImplementedError


def check_tracks(tracks: ClipTracks, dataset: DatasetRef, root: Path) -> None:
    """Raise DataMissing where clips of the data set at `root` have no tracks."""
    raise NotImplementedError
