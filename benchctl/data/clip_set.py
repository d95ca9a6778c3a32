"""A data set as the engine sees it: labelled clips for training and for testing, checked when they are listed."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchctl.errors import DataMissing, UsageError, unknown
from benchctl.spec import DatasetRef

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One labelled video: a file, or a folder of frames."""

    #: path relative to the data set's folder, with forward slashes
    id: str
    path: Path
    #: index into the classes; 0 where the set has numbers instead
    label: int
    split: Split
    #: a number for each of the set's targets
    values: tuple[float, ...] = ()
    #: the video that the clip was cut from, with which it is judged; empty: it is one by itself
    video: str = ""


@dataclass(frozen=True)
class ClipSet:
    """Labelled clips of one data set."""

    name: str
    classes: tuple[str, ...]
    train: tuple[ClipRecord, ...]
    test: tuple[ClipRecord, ...]
    #: whether a mirrored clip keeps its class
    flip_safe: bool
    #: SHA-256 over (id, label, split, size) of every clip, and its values and video where it has them, sorted
    fingerprint: str
    #: ids that the list names and the folder lacks; they are in no split
    missing: tuple[str, ...] = ()
    #: names of the numbers that each clip has instead of a class; empty: it has a class
    targets: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """What a model answers for a clip: a score for each class, or a number for each target."""
        return len(self.targets) or len(self.classes)

    @cached_property
    def scale(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and deviation of each target over the training clips; the deviation of a constant is given as 1."""
        values = np.array([record.values for record in self.train], np.float64)
        deviation = values.std(axis=0)
        return values.mean(axis=0), np.where(deviation > 0, deviation, 1.0)

    def scaled_values(self, records: Sequence[ClipRecord]) -> npt.NDArray[np.float32]:
        """The numbers of `records`, each target scaled to mean 0 and deviation 1 over the training clips: (B, K)."""
        mean, deviation = self.scale
        return ((np.array([record.values for record in records], np.float64) - mean) / deviation).astype(np.float32)

    def share(self, fraction: float, seed: int) -> ClipSet:
        """With that share of the training clips, drawn class by class, at least one of each; the clips to test on stay.

        For one seed, a smaller share is part of a larger one.
        """
        by_class: dict[int, list[int]] = {}
        for index, record in enumerate(self.train):
            by_class.setdefault(record.label, []).append(index)
        kept: set[int] = set()
        for label, members in by_class.items():
            order = np.random.default_rng([seed, label]).permutation(len(members))
            kept |= {members[i] for i in order[: max(1, round(fraction * len(members)))].tolist()}
        return replace(self, train=tuple(record for index, record in enumerate(self.train) if index in kept))

    def held_out(self, fraction: float, seed: int) -> ClipSet:
        """Without that share of the training clips, drawn class by class, and with it in the place of those to test on."""
        kept = self.share(1 - fraction, seed).train
        known = {record.id for record in kept}
        return replace(self, train=kept, test=tuple(record for record in self.train if record.id not in known))

    @property
    def summary(self) -> str:
        """One line: how many clips, classes and missing files."""
        what = f"with {', '.join(self.targets)}" if self.targets else f"of {len(self.classes)} classes"
        line = f"{self.name}: {len(self.train)} train and {len(self.test)} test clips {what}"
        return f"{line}, {len(self.missing)} missing (first: {self.missing[0]})" if self.missing else line


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list of clips, and where it stands."""

    file: str
    label: int
    split: Split
    where: str
    #: as `ClipRecord` has them
    values: tuple[float, ...] = ()
    video: str = ""


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The folder of `ref`: its own root, else its name under `data_root`; None when there is no such folder."""
    folder = Path(ref.root).expanduser() if ref.root else data_root / ref.name if data_root else None
    return folder if folder is not None and folder.is_dir() else None


def clip_set(
    name: str, root: Path, classes: Sequence[str], rows: Iterable[Row], *, flip_safe: bool, targets: tuple[str, ...] = ()
) -> ClipSet:
    """Check `rows` and look up their files under `root`.

    A file that is missing is named in the result. It is an error only when nothing is left. With `targets` there are no classes.

    Raises:
        DataMissing: no file of the list exists.
        UsageError: a file is listed twice, a label is outside the classes, a class has no clip to train on, clips of one video differ
            in what they are or are in both splits, or a target is the same for all clips that are trained on.
    """
    records: list[ClipRecord] = []
    missing: list[str] = []
    seen: dict[str, str] = {}
    videos: dict[str, Row] = {}
    digest: list[str] = []
    for row in rows:
        if not targets and not 0 <= row.label < len(classes):
            raise UsageError(f"label {row.label} is outside the {len(classes)} classes", where=row.where)
        path = Path(os.path.normpath(root / row.file))  # not resolve(): a link keeps the name that the list gives it
        record = ClipRecord(os.path.relpath(path, root).replace(os.sep, "/"), path, row.label, row.split, row.values, row.video)
        if record.id in seen:
            raise UsageError(f"'{record.id}' is listed twice", where=row.where, fix=f"it is also at {seen[record.id]}; remove one")
        seen[record.id] = row.where
        first = videos.setdefault(row.video, row) if row.video else row
        if (first.label, first.split, first.values) != (row.label, row.split, row.values):
            what = f"video '{row.video}' is something else, or in the other split, at {first.where}"
            raise UsageError(what, where=row.where, fix="give all its clips one split and one class, or the same numbers")
        try:
            size = _size(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(record.id)
            continue
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            what = f"'{record.id}' cannot be looked up: {getattr(error, 'strerror', None) or error}"
            raise DataMissing(what, where=row.where, fix="repair this line, or the file's permissions") from error
        records.append(record)
        more = "".join(f"\0{value!r}" for value in row.values) + (f"\0video {row.video}" if row.video else "")
        digest.append(f"{record.id}\0{record.label}\0{record.split}\0{size}{more}")
    if not records:
        what = f"none of the {len(missing)} listed clips exists" if missing else "the list names no clip to train or test on"
        raise DataMissing(what, where=str(root), fix="put the videos there, or set BENCHCTL_DATA to the folder that holds them")
    train = tuple(r for r in records if r.split == "train")
    if targets:
        _check_targets(root, targets, train)
    else:
        _check_classes(name, root, classes, train, missing)
    return ClipSet(
        name=name,
        classes=tuple(classes),
        train=train,
        test=tuple(r for r in records if r.split == "test"),
        flip_safe=flip_safe,
        fingerprint=hashlib.sha256("\n".join(sorted(digest)).encode()).hexdigest(),
        missing=tuple(missing),
        targets=targets,
    )


def _size(path: Path) -> int:
    """Bytes of a file; of a folder, how many frames (entries that are not hidden) it holds.

    The bytes of all frames would take a look at each of some millions of files. What the file system says is the size of a folder
    differs from one disk to the next.
    """
    state = path.stat()
    if not stat.S_ISDIR(state.st_mode):
        return state.st_size
    with os.scandir(path) as entries:
        return sum(not entry.name.startswith(".") for entry in entries)


def _check_targets(root: Path, targets: Sequence[str], train: Sequence[ClipRecord]) -> None:
    if not train:
        raise UsageError("no clip to train on", where=str(root), fix="give some the training split")
    for index, target in enumerate(targets):
        if len({record.values[index] for record in train}) == 1:
            what = f"'{target}' is {train[0].values[index]:g} for all clips that are trained on: there is nothing to learn"
            raise UsageError(what, where=str(root), fix="leave it out of the targets")


def _check_classes(name: str, root: Path, classes: Sequence[str], train: Sequence[ClipRecord], missing: Sequence[str]) -> None:
    trained = {record.label for record in train}
    empty = [c for label, c in enumerate(classes) if label not in trained]
    if empty:
        named = ", ".join(f"'{c}'" for c in empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        what = f"no clip to train class {named} of '{name}'"
        why = f" ({len(missing)} listed files are missing)" if missing else ""
        raise UsageError(what + why, where=str(root), fix="add clips, or leave the class out of the list")


def read_text(path: Path) -> str:
    """A UTF-8 text file (a byte-order mark is dropped).

    Raises:
        DataMissing: it cannot be read.
        UsageError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start} is not UTF-8", where=str(path), fix="save the file as UTF-8") from None
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise DataMissing(what, where=str(path), fix="put it there, or name another file in the data set's options") from None


def read_csv(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a csv file with a header, each as (`file:line`, {column: text}) for `columns`.

    Raises:
        DataMissing, UsageError: as `read_text`.
        UnknownName: the header lacks one of `columns`; with the nearest names.
        UsageError: a row with too few or too many fields, or an unclosed quote.
    """
    reader = csv.reader(read_text(path).splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        for column in columns:
            if column not in header:
                raise unknown("column", column, header, where=f"{path}:1")
        for fields in reader:
            if not fields:
                continue
            where = f"{path}:{reader.line_num}"
            if len(fields) != len(header):
                raise UsageError(f"{len(fields)} fields, and the header has {len(header)}", where=where, fix="repair this line")
            row = dict(zip(header, fields))
            yield where, {column: row[column] for column in columns}
    except csv.Error as error:
        raise UsageError(f"torn csv: {error}", where=f"{path}:{reader.line_num}", fix="repair this line") from None
