"""Something-Something V2: 174 actions with objects, as sentences with "something" in the objects' place (Goyal et al. 2017).

The data set's folder holds `labels.json` (class to index, as text), `train.json`, `validation.json`, and the folder
`20bn-something-something-v2` with `<id>.webm`. A clip's class is its `template` without the brackets. The clips to validate on are
tested on, since the labels of the test clips are not public. `class_list` takes a part of the classes, such as the temporal subset
(Sevilla-Lara et al. 2021).

Left and right are not to be exchanged: "pushing something from left to right" is a class, and so is its mirror image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "174 actions with objects (Something-Something V2), or a part of them"
FLIP_SAFE = False

_WITHOUT_BRACKETS = str.maketrans("", "", "[]")


class Options(Vocabulary):
    """Where the lists and the videos are, relative to the data set's folder, and which classes are used."""

    labels: str = "labels.json"
    train: str = "train.json"
    test: str = "validation.json"
    videos: str = "20bn-something-something-v2"
    #: file with the name or template of one class on each line: only these are used, in the order of `labels`; null: all
    class_list: str | None = None


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(options: Options) -> int | None:
    """How many classes the data set has, where it is not there to say so; None: a part of them, which only its list tells."""
    return 174 if options.class_list is None else None


def load(root: Path, options: Options) -> ClipSet:
    """The clips to train and to validate on.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UnknownName: a template, or a class of `class_list`, that `labels` does not have; with the nearest ones.
        UsageError: a torn list, indices of classes that do not count from 0, a clip listed twice, a class without training clips.
    """
    official = _official(root / options.labels)
    index = {name: number for number, name in enumerate(official)}
    used = official if options.class_list is None else _part(root / options.class_list, index, options)
    place = {index[name]: number for number, name in enumerate(used)}
    rows = [*_rows(root, options.train, "train", options, index), *_rows(root, options.test, "test", options, index)]
    kept = (Row(row.file, place[row.label], row.split, row.where) for row in rows if row.label in place)
    return clip_set.clip_set("ssv2", root, used, kept, flip_safe=FLIP_SAFE)


def _official(path: Path) -> list[str]:
    """The classes by their index."""
    content = annotation_files.read_json(path)
    if not isinstance(content, dict):
        raise UsageError("not an object of class and index", where=str(path), fix="name the data set's own file")
    by_index: dict[int, str] = {}
    for name, value in content.items():
        if not isinstance(value, str) or not value.isdecimal() or int(value) >= len(content) or int(value) in by_index:
            what = f"class '{name}' has index {value!r}, not one of its own from 0 to {len(content) - 1}"
            raise UsageError(what, where=str(path), fix="fetch the file again")
        by_index[int(value)] = name
    return [by_index[number] for number in sorted(by_index)]


def _part(path: Path, index: dict[str, int], options: Options) -> list[str]:
    listed: dict[int, str] = {}
    for line, where in annotation_files.read_class_names(path).items():
        name = line.translate(_WITHOUT_BRACKETS)
        number = annotation_files.class_index(name, index, where=where, source=options.labels)
        other = listed.setdefault(number, where)
        if other != where:
            raise UsageError(f"class '{name}' is listed twice", where=where, fix=f"it is also at {other}; remove one")
    return [name for name, number in index.items() if number in listed]


def _rows(root: Path, file: str, split: Split, options: Options, index: dict[str, int]) -> Iterator[Row]:
    for where, entry in annotation_files.read_entries(root / file, {"id": str, "template": str}):
        name = str(entry["template"]).translate(_WITHOUT_BRACKETS)
        label = annotation_files.class_index(name, index, where=where, source=options.labels)
        yield Row(f"{options.videos}/{entry['id']}.webm", label, split, where)
