"""UWA3D Multiview Activity II: thirty actions by ten people, each recorded from four sides in turn (Rahmani et al. 2016).

Clips are called `aXX_sXX_vXX_eXX` (or `aXX_sXX_eXX_vXX`, as the depth files are): action, subject, view and repetition. A clip is a video,
or a folder of frames: JPEGs, or 16-bit PNGs of depth. They may lie in the data set's folder or in folders within it; where colour and
depth are both there, `folder` names one of them. Copies in use are called so; the authors' own archives were not seen.

Cross-view: clips of two views train, those of a third test. Views are 1 front, 2 left, 3 right, 4 top. The names of the classes are the
paper's list in its order; labels rest on the numbers alone.

A mirrored clip keeps its class: no action says on which side it is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchctl.data import clip_set, named_clips
from benchctl.data.clip_set import ClipSet, Row
from benchctl.data.named_clips import NamedClip, NameForm
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "thirty actions seen from four sides (UWA3D Multiview Activity II), split by view"
FLIP_SAFE = True

#: in the order of the numbers in the names of clips
CLASSES = (
    "one hand waving",
    "one hand punching",
    "two hand waving",
    "two hand punching",
    "sitting down",
    "standing up",
    "vibrating",
    "falling down",
    "holding chest",
    "holding head",
    "holding back",
    "walking",
    "irregular walking",
    "lying down",
    "turning around",
    "drinking",
    "phone answering",
    "bending",
    "jumping jack",
    "running",
    "picking up",
    "putting down",
    "kicking",
    "jumping",
    "dancing",
    "mopping floor",
    "sneezing",
    "sitting down on a chair",
    "squatting",
    "coughing",
)

View = Literal[1, 2, 3, 4]

_FORM = NameForm(
    "aXX_sXX_vXX_eXX",
    re.compile(
        r"a(?P<action>\d\d)_s(?P<subject>\d\d)(?=.*_v(?P<view>\d\d))(?=.*_e(?P<repetition>\d\d))"
        r"_[ev]\d\d_[ev]\d\d(?:_[a-z]+)?(?:\.(?:avi|mp4|bin))?"
    ),
    re.compile(r"a\d+_s\d+[^.]*(?:\.(?:avi|mp4|bin))?$"),
    folders=True,
    files=True,
)


class Options(Vocabulary):
    """Which views train and test, and where the clips are, relative to the data set's folder."""

    train_views: tuple[View, View] = (1, 2)
    test_view: View = 3
    folder: str = "."


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return len(CLASSES)


def load(root: Path, options: Options) -> ClipSet:
    """The clips of the three views.

    Raises:
        DataMissing: there is none.
        UsageError: the views are not three, a clip's name is not of the form or is there twice, or an action has no clip to train on.
    """
    if len({*options.train_views, options.test_view}) != 3:
        said = f"views {options.train_views[0]} and {options.train_views[1]} train and {options.test_view} tests"
        raise UsageError(f"{said}: these are not three views", where="uwa3d", fix="name three of 1, 2, 3, 4")
    clips = named_clips.find(root, _FORM, options.folder)
    return clip_set.clip_set("uwa3d", root, CLASSES, _rows(clips, options), flip_safe=FLIP_SAFE)


def _rows(clips: list[NamedClip], options: Options) -> Iterator[Row]:
    for clip in clips:
        action, view = named_clips.check(clip, "action", len(CLASSES)), named_clips.check(clip, "view", 4)
        if view in options.train_views or view == options.test_view:
            yield Row(clip.file, action - 1, "test" if view == options.test_view else "train", clip.where)
