"""FineGym: elements of gymnastics, 99 or 288 of them (Shao et al. 2020).

The data set's folder holds `gym99_train_element_v1.0.txt` and `gym99_val_element.txt` (and those of gym288), `name label` on each
line, and the folder `videos` with `<name>.mp4`: `<youtube id>_E_<start>_<end>_A_<start>_<end>`, an event cut from the video and an
element cut from the event. The clips to validate on are tested on. Classes are called by their number.

A mirrored clip keeps its class: the elements count turns, and do not say to which side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "elements of gymnastics, 99 or 288 of them (FineGym)"
FLIP_SAFE = True

_NAME = re.compile(r".+_E_\d{6}_\d{6}_A_\d{4}_\d{4}")


class Options(Vocabulary):
    """Which of its lists is used, and where the videos are, relative to the data set's folder."""

    classes: Literal[99, 288] = 99
    #: of the list to train on
    version: Literal["1.0", "1.1"] = "1.0"
    #: folder of the lists
    lists: str = "."
    videos: str = "videos"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return options.classes


def load(root: Path, options: Options) -> ClipSet:
    """The clips of both lists.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UsageError: a line that is not `name label`, a name of another form, a label beyond the classes, a clip listed twice, a class
            without training clips.
    """
    stem = f"{options.lists}/gym{options.classes}"
    train, test = f"{stem}_train_element_v{options.version}.txt", f"{stem}_val_element.txt"
    rows = [*_rows(root, train, "train", options), *_rows(root, test, "test", options)]
    classes = [str(number) for number in range(options.classes)]
    return clip_set.clip_set("finegym", root, classes, rows, flip_safe=FLIP_SAFE)


def _rows(root: Path, file: str, split: Split, options: Options) -> Iterator[Row]:
    for where, line in annotation_files.read_lines(root / file):
        fields = line.rsplit(None, 1)
        if len(fields) != 2:
            raise UsageError(f"not 'name label': '{line}'", where=where, fix="repair this line")
        if not _NAME.fullmatch(fields[0]):
            raise UsageError(f"'{fields[0]}' is not called <id>_E_<start>_<end>_A_<start>_<end>", where=where, fix="repair this line")
        yield Row(f"{options.videos}/{fields[0]}.mp4", annotation_files.integer(fields[1], "label", where), split, where)
