"""The scores of a cell's test clips, as it left them beside its checkpoint."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchctl.errors import BenchctlError, UsageError


@dataclass(frozen=True)
class Scores:
    """What a cell said of each test clip."""

    ids: tuple[str, ...]
    #: int64 (clips,)
    labels: npt.NDArray[np.int64]
    #: float64 (clips, classes), softmax averaged over views
    scores: npt.NDArray[np.float64]

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """The largest score of each clip: (clips,)."""
        return self.scores.max(1)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether that is the score of its class: (clips,)."""
        return self.scores.argmax(1) == self.labels


def read(file: Path) -> Scores:
    """The scores in `file`.

    Raises:
        BenchctlError: it is torn, or holds something else.
    """
    try:
        with np.load(file) as kept:
            ids, labels, scores = kept["ids"], kept["labels"], kept["scores"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BenchctlError(
            f"no readable scores ({type(error).__name__})", where=str(file), fix="run its suite again with --fresh"
        ) from None
    if labels.ndim != 1 or scores.ndim != 2:
        raise BenchctlError("scores of numbers, not of classes", where=str(file), fix="name a cell that tells classes")
    return Scores(tuple(ids.tolist()), labels.astype(np.int64), scores.astype(np.float64))


def aligned(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """Both in the order of the first one's clips.

    Raises:
        UsageError: they are of other clips, or of other classes.
    """
    if set(first.ids) != set(second.ids):
        only = len(set(first.ids) ^ set(second.ids))
        raise UsageError(f"{only} clips were judged by one of the two cells only", fix="name cells of one data set and split")
    place = {clip: index for index, clip in enumerate(second.ids)}
    order = np.array([place[clip] for clip in first.ids])
    moved = Scores(first.ids, second.labels[order], second.scores[order])
    if first.scores.shape != second.scores.shape or not np.array_equal(first.labels, moved.labels):
        raise UsageError("the two cells tell other classes apart", fix="name cells of one data set")
    return first, moved
