"""3D Action Pairs: six pairs of actions before a depth camera that differ in the order of time alone (Oreifej and Liu 2013).

Clips are taken to be called `aXX_sXX_eXX`: action, subject and repetition, each counted from 1, as tools in use have them; each is a
folder of frames (16-bit PNGs of depth, or JPEGs), a video, or a depth file as MSRAction3D's. They may lie in the data set's folder or in
folders within it; where colour and depth are both there, `folder` names one of them. The authors' own archive was not seen: neither
its names nor the order of the actions is verified. Labels rest on the numbers alone.

Ten people do each action three times. The first five test, the others train, as the paper has it.

A mirrored clip keeps its class: the actions of a pair are each other in reversed time, not in a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchctl.data import clip_set, named_clips
from benchctl.data.clip_set import ClipSet, Row
from benchctl.data.named_clips import NamedClip, NameForm
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "six pairs of actions that differ in time alone (3D Action Pairs), split by subject"
FLIP_SAFE = True

#: in the order of the numbers in the names of clips
CLASSES = (
    "pick up a box",
    "put down a box",
    "lift a box",
    "place a box",
    "push a chair",
    "pull a chair",
    "wear a hat",
    "take off a hat",
    "put on a backpack",
    "take off a backpack",
    "stick a poster",
    "remove a poster",
)

_SUBJECTS = 10
_LAST_TESTED = 5
_FORM = NameForm(
    "aXX_sXX_eXX",
    re.compile(r"a(?P<action>\d\d)_s(?P<subject>\d\d)_e(?P<repetition>\d\d)(?:_[a-z]+)?(?:\.(?:avi|mp4|bin))?"),
    re.compile(r"a\d+_s\d+[^.]*(?:\.(?:avi|mp4|bin))?$"),
    folders=True,
    files=True,
)


class Options(Vocabulary):
    """Where the clips are, relative to the data set's folder."""

    folder: str = "."


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return len(CLASSES)


def load(root: Path, options: Options) -> ClipSet:
    """The clips under `folder`.

    Raises:
        DataMissing: there is none.
        UsageError: a clip's name is not of the form or is there twice, or an action has no clip to train on.
    """
    clips = named_clips.find(root, _FORM, options.folder)
    return clip_set.clip_set("action_pairs", root, CLASSES, _rows(clips), flip_safe=FLIP_SAFE)


def _rows(clips: list[NamedClip]) -> Iterator[Row]:
    for clip in clips:
        action, subject = named_clips.check(clip, "action", len(CLASSES)), named_clips.check(clip, "subject", _SUBJECTS)
        yield Row(clip.file, action - 1, "test" if subject <= _LAST_TESTED else "train", clip.where)
