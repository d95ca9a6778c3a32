"""Clips listed as `id;label`, their frames as JPEGs in a folder of that id: how Something-Something V1 and Jester were published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.vocabulary import Vocabulary


class Lists(Vocabulary):
    """Where the lists and the frames are, relative to the data set's folder."""

    #: the name of one class on each line; classes are numbered in this order
    labels: str
    train: str
    test: str
    #: folder of the clips' folders
    frames: str


def load_as(name: str, root: Path, lists: Lists, *, flip_safe: bool) -> ClipSet:
    """The clips that the two lists name, for a data set called `name`.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UnknownName: a label that is not in the list of classes; with the nearest ones.
        UsageError: a line that is not `id;label`, a clip or class listed twice, a class without training clips.
    """
    classes = list(annotation_files.read_class_names(root / lists.labels))
    index = {label: number for number, label in enumerate(classes)}
    rows = [*_rows(root, lists.train, "train", lists, index), *_rows(root, lists.test, "test", lists, index)]
    return clip_set.clip_set(name, root, classes, rows, flip_safe=flip_safe)


def _rows(root: Path, file: str, split: Split, lists: Lists, index: dict[str, int]) -> Iterator[Row]:
    for where, line in annotation_files.read_lines(root / file):
        clip, separator, label = (part.strip() for part in line.partition(";"))
        if not clip or not separator or not label:
            raise UsageError(f"not 'id;label': '{line}'", where=where, fix="repair this line, or name the list that has labels")
        number = annotation_files.class_index(label, index, where=where, source=str(root / lists.labels))
        yield Row(f"{lists.frames}/{clip}", number, split, where)
