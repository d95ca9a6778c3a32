"""Jester: 27 hand gestures before a webcam (Materzynska et al. 2019).

The data set's folder holds `jester-v1-labels.csv`, `jester-v1-train.csv` and `jester-v1-validation.csv`, and the folder
`20bn-jester-v1` with a folder of JPEGs for each clip: `<id>/00001.jpg`. The clips to validate on are tested on, since the labels of
the test clips are not public.

Left and right are not to be exchanged: "swiping left" and "swiping right" are classes, and so are the two ways to turn a hand.
"""

from __future__ import annotations

from pathlib import Path

from benchctl.data import clip_set, id_label
from benchctl.data.clip_set import ClipSet
from benchctl.spec import DatasetRef

DATASET = "27 hand gestures before a webcam (Jester), folders of JPEGs"
FLIP_SAFE = False


class Options(id_label.Lists):
    """Where the lists and the frames are, relative to the data set's folder."""

    labels: str = "jester-v1-labels.csv"
    train: str = "jester-v1-train.csv"
    test: str = "jester-v1-validation.csv"
    frames: str = "20bn-jester-v1"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 27


def load(root: Path, options: Options) -> ClipSet:
    """The clips to train and to validate on.

    Raises:
        DataMissing, UnknownName, UsageError: as `id_label.load_as`.
    """
    return id_label.load_as("jester", root, options, flip_safe=FLIP_SAFE)
