"""MSRAction3D: twenty actions before a depth camera (Li, Zhang and Liu 2010), one person in each clip.

Clips are `aXX_sXX_eXX_sdepth.bin`: action, subject and repetition, each counted from 1. They may lie in the data set's folder or in
folders within it. Subjects with odd numbers train, those with even numbers test: the cross-subject test of the paper.

Left and right are not to be exchanged: subjects use the right arm and leg throughout, and a tick that is drawn in the air is no tick
in a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchctl.data import clip_set
from benchctl.data.clip_set import ClipSet, Row
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "twenty actions before a depth camera (MSRAction3D), split by subject"
FLIP_SAFE = False

#: in the order of the numbers in the names of files
CLASSES = (
    "high arm wave",
    "horizontal arm wave",
    "hammer",
    "hand catch",
    "forward punch",
    "high throw",
    "draw x",
    "draw tick",
    "draw circle",
    "hand clap",
    "two hand wave",
    "side boxing",
    "bend",
    "forward kick",
    "side kick",
    "jogging",
    "tennis swing",
    "tennis serve",
    "golf swing",
    "pickup and throw",
)

_ENDING = "_sdepth.bin"
_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})" + re.escape(_ENDING))


class Options(Vocabulary):
    """None: the data set is used whole."""


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return len(CLASSES)


def load(root: Path, options: Options) -> ClipSet:  # noqa: ARG001
    """The depth clips under `root`.

    Raises:
        DataMissing: there is none.
        UsageError: a clip's name, or the action in it, is not one of the data set's, or an action has no clip to train on.
    """
    return clip_set.clip_set("msraction3d", root, CLASSES, _rows(root), flip_safe=FLIP_SAFE)


def _rows(root: Path) -> Iterator[Row]:
    for path in sorted(root.rglob(f"*{_ENDING}")):
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise UsageError("not called aXX_sXX_eXX_sdepth.bin", where=str(path), fix="rename it, or take it away")
        action, subject = int(named[1]), int(named[2])
        if not 1 <= action <= len(CLASSES):
            raise UsageError(f"there is no action {action}, only 1 to {len(CLASSES)}", where=str(path), fix="rename it, or take it away")
        yield Row(str(path.relative_to(root)), action - 1, "train" if subject % 2 else "test", str(path))
