"""HMDB51: 51 human actions from films and the web, in three splits (Kuehne et al. 2011).

The data set's folder holds `testTrainMulti_7030_splits` with `<class>_test_split1.txt` (and 2, 3) for each class: `file number` on each
line, where 1 is to train on, 2 to test on, and 0 is not used in this split. The videos are `videos/<class>/<file>`. Classes are
numbered in alphabetical order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import DataMissing, UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "51 human actions from films and the web (HMDB51), one of three splits"
#: no class says on which side it is done
FLIP_SAFE = True

_LIST = re.compile(r"(.+)_test_split[123]\.txt")
_SPLITS: dict[str, Split | None] = {"0": None, "1": "train", "2": "test"}


class Options(Vocabulary):
    """Which split is used, and where lists and videos are, relative to the data set's folder."""

    split: Literal[1, 2, 3] = 1
    lists: str = "testTrainMulti_7030_splits"
    videos: str = "videos"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 51


def load(root: Path, options: Options) -> ClipSet:
    """The clips of one split.

    Raises:
        DataMissing: there is no list, a class lacks that of this split, or no clip of them exists.
        UsageError: a line that is not `file number`, a clip listed twice, a class without training clips.
    """
    lists = root / options.lists
    classes = sorted({found[1] for path in lists.glob("*.txt") if (found := _LIST.fullmatch(path.name))})
    if not classes:
        raise DataMissing("no <class>_test_split<number>.txt", where=str(lists), fix="put the lists there, or set 'lists'")
    rows = [row for label, name in enumerate(classes) for row in _rows(root, name, label, options)]
    return clip_set.clip_set("hmdb51", root, classes, rows, flip_safe=FLIP_SAFE)


def _rows(root: Path, name: str, label: int, options: Options) -> Iterator[Row]:
    for where, line in annotation_files.read_lines(root / options.lists / f"{name}_test_split{options.split}.txt"):
        file, _, number = line.rpartition(" ")
        if not file or number not in _SPLITS:
            raise UsageError(f"not 'file number', with 0, 1 or 2: '{line}'", where=where, fix="repair this line")
        split = _SPLITS[number]
        if split is not None:
            yield Row(f"{options.videos}/{name}/{file.strip()}", label, split, where)
