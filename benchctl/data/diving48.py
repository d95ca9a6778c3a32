"""Diving48: 48 competition dives, told apart by take-off, somersaults, twists and flight position (Li, Li and Vasconcelos 2018).

The data set's folder holds version 2 of the lists, `Diving48_V2_train.json` and `Diving48_V2_test.json` (`vid_name` and `label`),
`Diving48_vocab.json` (a list of four words for each class), and the folder `rgb` with `<vid_name>.mp4`.

A mirrored dive keeps its class: the classes count twists, and do not say to which side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "48 competition dives (Diving48, version 2 of its lists)"
FLIP_SAFE = True


class Options(Vocabulary):
    """Where the lists and the videos are, relative to the data set's folder."""

    vocabulary: str = "Diving48_vocab.json"
    train: str = "Diving48_V2_train.json"
    test: str = "Diving48_V2_test.json"
    videos: str = "rgb"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 48


def load(root: Path, options: Options) -> ClipSet:
    """The clips of both lists.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UsageError: a torn list, a label that the vocabulary does not have, a clip listed twice, a class without training clips.
    """
    classes = _classes(root / options.vocabulary)
    rows = [*_rows(root, options.train, "train", options), *_rows(root, options.test, "test", options)]
    return clip_set.clip_set("diving48", root, classes, rows, flip_safe=FLIP_SAFE)


def _classes(path: Path) -> list[str]:
    content = annotation_files.read_json(path)
    if not isinstance(content, list) or not all(isinstance(words, list) and all(isinstance(w, str) for w in words) for words in content):
        raise UsageError("not a list of the words of each class", where=str(path), fix="name the data set's own vocabulary")
    classes = [" ".join(words) for words in content]
    twice = next((name for name in classes if classes.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"class '{twice}' is listed twice", where=str(path), fix="fetch the file again")
    return classes


def _rows(root: Path, file: str, split: Split, options: Options) -> Iterator[Row]:
    for where, entry in annotation_files.read_entries(root / file, {"vid_name": str, "label": int}):
        yield Row(f"{options.videos}/{entry['vid_name']}.mp4", int(str(entry["label"])), split, where)
