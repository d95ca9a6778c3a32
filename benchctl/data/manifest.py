"""Videos named by a csv file with a header: columns for path, class and split.

Classes are numbered in alphabetical order. A row whose split is neither a training nor a test value is left out.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from benchctl.data import clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError, unknown
from benchctl.spec import DatasetRef, Vocabulary

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
        UsageError: a torn row, an empty class name, a path listed twice, a class without training clips.
    """
    return load_as("manifest", root, options)


def load_as(name: str, root: Path, options: Options) -> ClipSet:
    """As `load`, for a data set called `name`."""
    splits: dict[str, Split] = {**dict.fromkeys(options.train, "train"), **dict.fromkeys(options.test, "test")}
    if shared := set(options.train) & set(options.test):
        raise UsageError(f"split '{min(shared)}' is both train and test", where=name, fix="give it to one")
    path = root / options.file
    found: list[tuple[str, str, Split, str]] = []
    values: set[str] = set()
    columns = (options.path_column, options.class_column, options.split_column)
    for where, row in clip_set.read_csv(path, columns, options.delimiter):
        file, label, value = (row[column].strip() for column in columns)
        values.add(value)
        if not file or not label:
            raise UsageError(f"empty {'path' if not file else 'class'}", where=where, fix="repair this line")
        if value in splits and label not in options.leave_out:
            found.append((file, label, splits[value], where))
    for value in splits:
        if value not in values:
            raise unknown(f"value of column '{options.split_column}':", value, values, where=str(path))
    classes = sorted({label for _, label, _, _ in found})
    number = {label: index for index, label in enumerate(classes)}
    rows = [Row(file, number[label], split, where) for file, label, split, where in found]
    return clip_set.clip_set(name, root, classes, rows, flip_safe=options.flip_safe)
