"""Fingertip gestures seen from a head camera: ten paths in the air, small clips, from the public EgoGestAR test videos.

The data set's folder holds `manifest.csv` (path, class, serial, session, ...). Clips are split by recording session, so that no
session is on both sides: A, C and F train, B, D, E and G test. The start of a path gives some of its class away: report a
single-frame model beside a video model.
"""

from __future__ import annotations

from pathlib import Path

from benchctl.data import clip_set, manifest
from benchctl.data.clip_set import ClipSet
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "ten fingertip gestures from a head camera (EgoGestAR test videos), split by recording session"
#: left and right are classes
FLIP_SAFE = False

_TRAIN_SESSIONS = ("A", "C", "F")
_TEST_SESSIONS = ("B", "D", "E", "G")
#: the twenty unclassified clips have no known session of their own
_UNKNOWN_SESSION = "U"
_UNCLASSIFIED = "unclassified"


class Options(Vocabulary):
    """Which clips are used."""

    #: train with the clips of no gesture as an eleventh class. Their sessions are not known, so none is tested on.
    keep_unclassified: bool = False


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 11 if options.keep_unclassified else 10


def load(root: Path, options: Options) -> ClipSet:
    """The gesture clips: 140 to train and 77 to test on, of ten classes.

    Raises:
        DataMissing: `manifest.csv` is missing, or none of its clips exists.
        UsageError: the manifest is torn.
    """
    keep = options.keep_unclassified
    columns = manifest.Options(
        split_column="session",
        train=(*_TRAIN_SESSIONS, _UNKNOWN_SESSION) if keep else _TRAIN_SESSIONS,
        test=_TEST_SESSIONS,
        leave_out=() if keep else (_UNCLASSIFIED,),
        flip_safe=FLIP_SAFE,
    )
    return manifest.load_as("egogestar", root, columns)
