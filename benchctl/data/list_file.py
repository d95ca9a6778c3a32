"""Videos named by a list file: `path label` on each line, as the loaders of TimeSformer and VideoMAE take them.

Labels count from 0. The path may hold spaces: the label is what follows the last separator. Empty lines and lines that begin with
`#` are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from benchctl.data import clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "videos named by list files, 'path label' on each line"
FLIP_SAFE = False


class Options(Vocabulary):
    """How the lists are written. File names are relative to the data set's folder."""

    train: str = "train.txt"
    test: str = "test.txt"
    #: what stands between path and label; null: spaces or tabs
    separator: str | None = Field(None, min_length=1)
    #: folder of the videos, relative to the data set's folder
    videos: str = "."
    #: file with the name of one class on each line; null: classes are called by their number
    class_names: str | None = None
    #: whether a mirrored clip keeps its class
    flip_safe: bool = FLIP_SAFE


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def load(root: Path, options: Options) -> ClipSet:
    """The clips that the two lists name.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UsageError: a line that is not `path label`, a label that is not a class, a path listed twice, a class without training clips.
    """
    rows = [*_rows(root, options.train, "train", options), *_rows(root, options.test, "test", options)]
    if options.class_names is None:
        classes = [str(label) for label in range(max((row.label for row in rows), default=-1) + 1)]
    else:
        classes = [line.strip() for line in clip_set.read_text(root / options.class_names).splitlines() if line.strip()]
    return clip_set.clip_set("list_file", root, classes, rows, flip_safe=options.flip_safe)


def _rows(root: Path, file: str, split: Split, options: Options) -> Iterator[Row]:
    path = root / file
    for number, line in enumerate(clip_set.read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}:{number}"
        fields = line.strip().rsplit(options.separator, 1)
        if len(fields) != 2:
            raise UsageError(f"not 'path label': '{line.strip()}'", where=where, fix="write the label after the path")
        clip, label = fields
        if not label.strip().isdecimal():
            raise UsageError(f"label '{label.strip()}' is not an integer from 0", where=where, fix="write the class index")
        yield Row(str(Path(options.videos) / clip.strip()), int(label), split, where)
