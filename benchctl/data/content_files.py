"""What was computed of videos once, filed by their content: a folder that holds sets, a set that holds a file for each video.

The file of a video is named by the SHA-256 of its bytes, so a changed video has none, and two data sets share what they have in common. A
file is whole or absent. A video of which nothing can be computed has a note instead, `....txt`, that says why.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchctl import lookup
from benchctl.atomic_file import replacing
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.errors import BenchctlError, ClipUnreadable, MissingError
from benchctl.folders import data_root
from benchctl.spec import DatasetRef

_VIDEOS = "videos.tsv"


@dataclass(frozen=True)
class ContentSet:
    """One set of files; it need not exist yet."""

    #: what the files hold, for errors
    WHAT: ClassVar[str]

    #: folder of all sets of this kind
    folder: Path

    @property
    def path(self) -> Path:
        """Its folder."""
        raise NotImplementedError

    def file(self, digest: str) -> Path:
        """What was computed of the video with this digest."""
        return self.path / digest[:2] / f"{digest}.npy"

    def note(self, digest: str) -> Path:
        """Why nothing was computed of the video with this digest."""
        return self.file(digest).with_suffix(".txt")

    def noted(self, clip: ClipRecord, digest: str, error: BenchctlError) -> Ended:
        """Write down why there is nothing of a clip."""
        reason = f"{error.what}; {error.fix}" if error.fix else error.what
        note = self.note(digest)
        with writing(note, self.WHAT):
            note.parent.mkdir(parents=True, exist_ok=True)
            with replacing(note) as out:
                out.write(reason.encode())
        return Ended(clip, "unreadable", reason=reason)

    def missing(self, clips: Sequence[ClipRecord]) -> int:
        """Of how many of `clips` nothing was computed yet. Those that were found unreadable, or cannot be read now, do not count."""
        digests = VideoDigests(self.folder)
        count = 0
        for clip in clips:
            try:
                digest = digests.of(clip.path)
            except OSError:
                continue  # the loader names it
            count += not (self.file(digest).is_file() or self.note(digest).is_file())
        return count

    def by_content(self, clips: Sequence[ClipRecord], todo: dict[str, list[ClipRecord]]) -> Iterator[Ended]:
        """Sort `clips`: say of those that are there or unreadable how they ended, and put the others into `todo` by digest."""
        with writing(self.folder, self.WHAT):
            self.path.mkdir(parents=True, exist_ok=True)
        digests = VideoDigests(self.folder)
        for clip in clips:
            try:
                digest = digests.of(clip.path, remember=True)
            except OSError as error:
                yield Ended(clip, "unreadable", reason=error.strerror or str(error))
                continue
            if self.file(digest).is_file():
                yield Ended(clip, "there", self.file(digest).stat().st_size)
            else:
                todo.setdefault(digest, []).append(clip)


@dataclass(frozen=True)
class Ended:
    """What became of one clip."""

    clip: ClipRecord
    #: `there`: it was before
    word: Literal["done", "there", "unreadable"]
    size_bytes: int = 0
    #: why it is unreadable
    reason: str = ""

    def of_copies(self, copies: Sequence[ClipRecord]) -> Iterator[Ended]:
        """What became of other clips that are the same video."""
        for clip in copies:
            yield Ended(clip, "there" if self.word == "done" else self.word, reason=self.reason)


class VideoDigests:
    """SHA-256 of videos. What was computed under `folder` before is not again while a file keeps its size and its time of change."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _VIDEOS
        self._known: dict[str, tuple[str, str]] = {}
        try:
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            fields = line.split("\t")
            if len(fields) == 3 and len(fields[0]) == 64:  # not a line that was cut short
                self._known[fields[2]] = (fields[0], fields[1])

    def of(self, path: Path, *, remember: bool = False) -> str:
        """The digest of `path`; `remember` writes it down for later.

        Raises:
            OSError: the video cannot be read.
            MissingError: the folder cannot be written.
        """
        size, changed = _state(path)
        stamp, name = f"{size} {changed}", json.dumps(str(path.absolute()))
        digest, known = self._known.get(name, ("", ""))
        if known == stamp:
            return digest
        digest = _digest(path)
        self._known[name] = (digest, stamp)
        if remember:
            with writing(self._file, "digests"), self._file.open("a", encoding="utf-8") as file:
                file.write(f"{digest}\t{stamp}\t{name}\n")
        return digest


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in `file`; None: there is none, or nothing that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def writing(place: Path, what: str) -> Iterator[None]:
    """Turns an OSError inside it into one line about `place`."""
    try:
        yield
    except OSError as error:
        fix = "free space there" if error.errno == errno.ENOSPC else "make it a folder that can be written"
        said = f"{what} cannot be written: {error.strerror or error}"
        raise MissingError(said, where=str(place), fix=f"{fix}, or name another --folder") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a video that this process may have read before.

    Raises:
        ClipUnreadable: it cannot be read.
    """
    try:
        return _digest_of(path, *_state(path))
    except OSError as error:
        raise ClipUnreadable(error.strerror or str(error), where=str(path)) from error


@cache
def _digest_of(path: Path, _size: int, _changed: int) -> str:
    return _digest(path)


def _state(path: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last change; of a folder of frames, of all that is in it together."""
    state = path.stat()
    if not stat.S_ISDIR(state.st_mode):
        return state.st_size, state.st_mtime_ns
    with os.scandir(path) as entries:
        states = [entry.stat() for entry in entries]
    return sum(s.st_size for s in states), max(s.st_mtime_ns for s in (state, *states))


def _digest(path: Path) -> str:
    """SHA-256 of a video; of a folder of frames, of their names and digests."""
    if path.is_dir():
        frames = [f"{frame.name}\0{_digest(frame)}" for frame in sorted(path.iterdir())]
        return hashlib.sha256("\n".join(frames).encode()).hexdigest()
    with path.open("rb") as video:
        return hashlib.file_digest(video, "sha256").hexdigest()


def listed(dataset: DatasetRef, root: Path) -> tuple[DatasetRef, tuple[ClipRecord, ...]]:
    """All clips of the data set at `root`, and how it is named in a command: with its folder, where that is not its usual one."""
    module = lookup.load("dataset", dataset.name)
    clips: ClipSet = module.load(root, module.Options.model_validate(dataset.options))
    base = data_root()
    usual = base is not None and root == base / dataset.name
    return dataset if usual else dataset.model_copy(update={"root": str(root)}), (*clips.train, *clips.test)


def typed_command(verb: str, dataset: DatasetRef, words: Sequence[str]) -> str:
    """`benchctl data VERB` for a data set with its options, as typed."""
    defaults = lookup.load("dataset", dataset.name).Options().model_dump(mode="json")
    command = ["benchctl", "data", verb, dataset.name]
    for key, value in dataset.options.items():
        if value != defaults.get(key):
            command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if dataset.root is not None:
        command += ["--root", dataset.root]
    return shlex.join([*command, *words])
