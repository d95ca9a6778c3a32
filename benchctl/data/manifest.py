"""Videos named by a csv file with a header: columns for path, class and split; or for numbers in the place of a class.

Classes are numbered in alphabetical order. A row whose split is neither a training nor a test value is left out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from benchctl.data import clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError, unknown
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "videos named by a csv file with columns for path, class and split"
FLIP_SAFE = False


class Options(Vocabulary):
    """How the csv file is written. File names are relative to the data set's folder."""

    file: str = "manifest.csv"
    delimiter: str = Field(",", min_length=1, max_length=1)
    path_column: str = "path"
    class_column: str = "class"
    split_column: str = "split"
    #: values of the split column
    train: tuple[str, ...] = Field(("train",), min_length=1)
    test: tuple[str, ...] = Field(("test",), min_length=1)
    #: classes that are not used
    leave_out: tuple[str, ...] = ()
    #: columns of numbers that are learned in the place of a class
    targets: tuple[str, ...] = ()
    #: names the video that a clip was cut from: test clips of one video are judged together
    video_column: str | None = None
    #: whether a mirrored clip keeps its class
    flip_safe: bool = FLIP_SAFE


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def load(root: Path, options: Options) -> ClipSet:
    """The clips that the csv file names.

    Raises:
        DataMissing: the file is missing, or no clip of it exists.
        UnknownName: a column, or a split value, that the file does not have.
        UsageError: a torn row, an empty class name, a path listed twice, a class without training clips, a target that is not a finite
            number or the same for all training clips, a video that is two things.
    """
    return load_as("manifest", root, options)


def load_as(name: str, root: Path, options: Options) -> ClipSet:
    """As `load`, for a data set called `name`."""
    splits: dict[str, Split] = {**dict.fromkeys(options.train, "train"), **dict.fromkeys(options.test, "test")}
    if shared := set(options.train) & set(options.test):
        raise UsageError(f"split '{min(shared)}' is both train and test", where=name, fix="give it to one")
    _check_options(name, options)
    path = root / options.file
    found: list[tuple[str, Row]] = []
    values: set[str] = set()
    for where, row in clip_set.read_csv(path, _columns(options), options.delimiter):
        texts = {column: text.strip() for column, text in row.items()}
        label = "" if options.targets else texts[options.class_column]
        value = texts[options.split_column]
        values.add(value)
        for what, text in _needed(texts, label, options).items():
            if not text:
                raise UsageError(f"empty {what}", where=where, fix="repair this line")
        if value in splits and label not in options.leave_out:
            numbers = tuple(_number(texts[target], target, where) for target in options.targets)
            video = texts[options.video_column] if options.video_column else ""
            found.append((label, Row(texts[options.path_column], 0, splits[value], where, numbers, video)))
    for value in splits:
        if value not in values:
            raise unknown(f"value of column '{options.split_column}':", value, values, where=str(path))
    classes = [] if options.targets else sorted({label for label, _ in found})
    number = {label: index for index, label in enumerate(classes)}
    rows = [replace(row, label=number.get(label, 0)) for label, row in found]
    return clip_set.clip_set(name, root, classes, rows, flip_safe=options.flip_safe, targets=options.targets)


def _check_options(name: str, options: Options) -> None:
    if options.targets and options.leave_out:
        raise UsageError("'leave_out' names classes, and with 'targets' there are none", where=name, fix="leave one of them out")
    twice = next((target for target in options.targets if options.targets.count(target) > 1), None)
    if twice is not None:
        raise UsageError(f"target '{twice}' is there twice", where=name, fix="name it once")


def _columns(options: Options) -> list[str]:
    """Those that are read."""
    learned = options.targets or (options.class_column,)
    video = (options.video_column,) if options.video_column else ()
    return list(dict.fromkeys((options.path_column, *learned, options.split_column, *video)))


def _needed(texts: dict[str, str], label: str, options: Options) -> dict[str, str]:
    """What a line must have, by what a person calls it."""
    needed = {"path": texts[options.path_column]}
    if not options.targets:
        needed["class"] = label
    if options.video_column:
        needed["video"] = texts[options.video_column]
    return needed


def _number(text: str, target: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{target} '{text}' is not a finite number", where=where, fix="repair this line")
    return number
