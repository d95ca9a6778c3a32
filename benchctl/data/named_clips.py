"""Clips whose names say what they are: found in a tree of folders, whatever the folders are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchctl.errors import DataMissing, UsageError


@dataclass(frozen=True)
class NamedClip:
    """One clip and what its name says."""

    #: relative to the data set's folder
    file: str
    where: str
    #: the named groups of the pattern, which are all numbers
    numbers: dict[str, int]


@dataclass(frozen=True)
class NameForm:
    """How the clips of a data set are called."""

    #: in words, for errors
    words: str
    #: a whole name, its numbers as named groups
    pattern: re.Pattern[str]
    #: what is taken for a clip, and must then have the whole form
    candidate: re.Pattern[str]
    #: whether a folder may be a clip, and whether a file may
    folders: bool
    files: bool


def find(root: Path, form: NameForm, folder: str = ".") -> list[NamedClip]:
    """The clips in `folder` of the data set's folder `root`, and in folders within it, sorted by path.

    A folder that is a clip is not looked into.

    Raises:
        DataMissing: a folder is not there or cannot be read.
        UsageError: a name is not of the form, or two clips have the same numbers.
    """
    found: list[NamedClip] = []
    seen: dict[tuple[int, ...], NamedClip] = {}
    for path in sorted(_candidates(root / folder, form)):
        named = form.pattern.fullmatch(path.name)
        if named is None:
            raise UsageError(f"not called {form.words}", where=str(path), fix="rename it, or take it away")
        numbers = {key: int(value) for key, value in named.groupdict().items() if value is not None}
        clip = NamedClip(path.relative_to(root).as_posix(), str(path), numbers)
        other = seen.setdefault(tuple(numbers[key] for key in sorted(numbers)), clip)
        if other is not clip:
            fix = f"it is also at {other.where}; take one away, or name the folder of one kind"
            raise UsageError(f"clip '{path.name}' is there twice", where=str(path), fix=fix)
        found.append(clip)
    return found


def check(clip: NamedClip, what: str, last: int, first: int = 1) -> int:
    """The number called `what` of a clip, which is from `first` to `last`.

    Raises:
        UsageError: it is not.
    """
    number = clip.numbers[what]
    if not first <= number <= last:
        raise UsageError(f"there is no {what} {number}, only {first} to {last}", where=clip.where, fix="rename it, or take it away")
    return number


def _candidates(root: Path, form: NameForm) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        fix = "put it there, or repair its permissions"
        raise DataMissing(f"the folder cannot be read: {error.strerror}", where=str(error.filename), fix=fix) from error

    for folder, folders, files in os.walk(root, onerror=unreadable):
        clips = [name for name in folders if form.folders and form.candidate.match(name)]
        folders[:] = sorted(set(folders) - set(clips))
        clips += [name for name in files if form.files and form.candidate.match(name)]
        yield from (Path(folder) / name for name in clips)
