"""HAA500: 500 atomic human actions, 20 clips of each (Chung et al. 2021).

No description of the files was found to verify this against. Clips are taken to be `video/<class>/<class>_<NNN>.mp4`, numbered from
000 to 019 in each class, as copies in use have them. The paper trains on 16 clips of each class, validates on 1 and tests on 3; which
ones it does not say. Here 000 to 015 are trained on and 016 to 019 tested on. Classes are numbered in the order of their names' bytes.

Mirrored clips are not used unless `flip_safe` says so: the list of classes was not verified either.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchctl.data import clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "500 atomic human actions (HAA500); its files and split were not verified"
FLIP_SAFE = False

_CLIPS_OF_A_CLASS = 20
_TRAINED_ON = 16
_NAME = re.compile(r"(.+)_(\d{3})\.mp4")


class Options(Vocabulary):
    """Where the videos are, relative to the data set's folder."""

    videos: str = "video"
    #: whether a mirrored clip keeps its class
    flip_safe: bool = FLIP_SAFE


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 500


def load(root: Path, options: Options) -> ClipSet:
    """The clips under `videos`.

    Raises:
        DataMissing: there is none.
        UsageError: a clip that is not called as its folder with a number from 000 to 019, or a class without training clips.
    """
    files = sorted((root / options.videos).glob("*/*.mp4"))
    classes = sorted({file.parent.name for file in files})
    index = {name: number for number, name in enumerate(classes)}
    rows = (_row(file, root, index) for file in files)
    return clip_set.clip_set("haa500", root, classes, rows, flip_safe=options.flip_safe)


def _row(file: Path, root: Path, index: dict[str, int]) -> Row:
    name = file.parent.name
    named = _NAME.fullmatch(file.name)
    if named is None or named[1] != name or int(named[2]) >= _CLIPS_OF_A_CLASS:
        what = f"not called {name}_<NNN>.mp4, numbered from 000 to {_CLIPS_OF_A_CLASS - 1:03}"
        raise UsageError(what, where=str(file), fix="rename it, or take it away")
    split: Split = "train" if int(named[2]) < _TRAINED_ON else "test"
    return Row(file.relative_to(root).as_posix(), index[name], split, str(file))
