"""UCF101: 101 human actions from YouTube, in three splits (Soomro, Zamir and Shah 2012).

The data set's folder holds `ucfTrainTestlist` with `classInd.txt` (`number class`, from 1), `trainlist01.txt` (`path number`) and
`testlist01.txt` (`path`), and so for splits 2 and 3; and the folder `UCF-101` with `<class>/v_<class>_gXX_cYY.avi`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "101 human actions from YouTube (UCF101), one of three splits"
#: no class says on which side it is done
FLIP_SAFE = True


class Options(Vocabulary):
    """Which split is used, and where lists and videos are, relative to the data set's folder."""

    split: Literal[1, 2, 3] = 1
    lists: str = "ucfTrainTestlist"
    videos: str = "UCF-101"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 101


def load(root: Path, options: Options) -> ClipSet:
    """The clips of one split.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UnknownName: a folder that is no class; with the nearest ones.
        UsageError: a torn line, classes that do not count from 1, a label that is not that of the folder, a clip listed twice, a class
            without training clips.
    """
    classes = _classes(root / options.lists / "classInd.txt")
    index = {name: number for number, name in enumerate(classes)}
    rows = [*_train_rows(root, options, index), *_test_rows(root, options, index)]
    return clip_set.clip_set("ucf101", root, classes, rows, flip_safe=FLIP_SAFE)


def _classes(path: Path) -> list[str]:
    classes: list[str] = []
    for where, line in annotation_files.read_lines(path):
        number, _, name = line.partition(" ")
        if number != str(len(classes) + 1) or not name.strip() or name.strip() in classes:
            what = f"not '{len(classes) + 1} class', with a class of its own: '{line}'"
            raise UsageError(what, where=where, fix="fetch the file again")
        classes.append(name.strip())
    return classes


def _train_rows(root: Path, options: Options, index: dict[str, int]) -> Iterator[Row]:
    for where, line in annotation_files.read_lines(root / options.lists / f"trainlist{options.split:02}.txt"):
        fields = line.rsplit(None, 1)
        if len(fields) != 2:
            raise UsageError(f"not 'path number': '{line}'", where=where, fix="repair this line")
        label = _label(fields[0], index, where)
        if annotation_files.integer(fields[1], "label", where) != label + 1:
            what = f"label {fields[1]} is not that of the folder, which classInd.txt gives as {label + 1}"
            raise UsageError(what, where=where, fix="repair this line, or classInd.txt")
        yield Row(f"{options.videos}/{fields[0]}", label, "train", where)


def _test_rows(root: Path, options: Options, index: dict[str, int]) -> Iterator[Row]:
    for where, line in annotation_files.read_lines(root / options.lists / f"testlist{options.split:02}.txt"):
        yield Row(f"{options.videos}/{line}", _label(line, index, where), "test", where)


def _label(path: str, index: dict[str, int], where: str) -> int:
    return annotation_files.class_index(path.partition("/")[0], index, where=where, source="classInd.txt")
