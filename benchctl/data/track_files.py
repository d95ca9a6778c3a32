"""Point tracks that were estimated beforehand, as files.

A set is the tracks by one estimator, a folder with a file for each video: float32 (F, N, 3), as `benchctl.data.tracks` has them. How
files are named and kept is said in `benchctl.data.content_files`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchctl.atomic_file import replacing
from benchctl.data import tracks
from benchctl.data.clip_set import ClipRecord
from benchctl.data.content_files import ContentSet, Ended, writing
from benchctl.data.decode import decode, probe
from benchctl.errors import ClipUnreadable
from benchctl.spec import TrackEstimatorName

#: short side of the frames that are tracked, at most
SHORT_SIDE = 256
#: frames that are decoded at a time
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class TrackSet(ContentSet):
    """One set of track files; it need not exist yet."""

    WHAT: ClassVar[str] = "tracks"

    estimator: TrackEstimatorName

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder / f"{self.estimator}-{tracks.SETTINGS_VERSION}"


def make(clips: Sequence[ClipRecord], track_set: TrackSet, processes: int) -> Iterator[Ended]:
    """Track every clip that has no tracks, and say of each how it ended. Stopped anywhere, it goes on where it was.

    Raises:
        MissingError: the folder cannot be written.
    """
    todo: dict[str, list[ClipRecord]] = {}
    yield from track_set.by_content(clips, todo)
    if not todo:
        return
    if processes == 1 or len(todo) == 1:
        for digest, same in todo.items():
            ended = _made(same[0], digest, track_set)
            yield ended
            yield from ended.of_copies(same[1:])
        return
    # a forked child would inherit the locks of decoders' threads in whatever state they were
    pool = ProcessPoolExecutor(min(processes, len(todo)), mp_context=get_context("spawn"))
    try:
        waiting = {pool.submit(_made, same[0], digest, track_set): same for digest, same in todo.items()}
        for future in as_completed(waiting):
            ended = future.result()
            yield ended
            yield from ended.of_copies(waiting[future][1:])
    finally:
        pool.shutdown(cancel_futures=True)


def _made(clip: ClipRecord, digest: str, track_set: TrackSet) -> Ended:
    """Track one clip; in a process of its own."""
    file = track_set.file(digest)
    try:
        found = of_video(clip.path, track_set.estimator)
    except ClipUnreadable as error:
        return track_set.noted(clip, digest, error)
    with writing(file, track_set.WHAT):
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as out:
            np.save(out, found)
        track_set.note(digest).unlink(missing_ok=True)
        return Ended(clip, "done", file.stat().st_size)


def of_video(path: Path, estimator: TrackEstimatorName) -> tracks.Tracks:
    """Tracks of a video file: (F, N, 3).

    Raises:
        ClipUnreadable: it cannot be decoded, no point was found in it, or all were lost.
        MissingError: the estimator is not there.
    """
    import cv2

    info = probe(path)
    short = min(info.height, info.width)
    scale = min(1.0, SHORT_SIDE / short)
    size = round(info.width * scale), round(info.height * scale)
    parts = []
    for start in range(0, info.frames, _FRAMES_AT_ONCE):
        some = decode(path, np.arange(start, min(start + _FRAMES_AT_ONCE, info.frames)), info=info)
        if some.shape[-1] != 3:
            raise ClipUnreadable("it holds depth; tracks are estimated on RGB", where=str(path))
        parts.append(some if scale == 1 else np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in some]))
    return tracks.estimate(np.concatenate(parts), estimator)
