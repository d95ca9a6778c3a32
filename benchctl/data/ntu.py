"""NTU RGB+D: 60 actions (Shahroudy et al. 2016), or 120 (Liu et al. 2019), before three cameras at once.

Clips are `SsssCcccPpppRrrrAaaa_rgb.avi`: setup, camera, subject, replication and action, each counted from 1. With modality depth they
are folders of 16-bit PNGs called `SsssCcccPpppRrrrAaaa`, as the masked depth maps are taken to unpack (which was not verified). They
may lie in the data set's folder or in folders within it. Of a folder that holds all 120 actions, version 60 uses the first 60.

The protocols are the papers'. Cross-subject: 20 of 40, or 53 of 106 subjects train, the others test. Cross-view (version 60): cameras 2
and 3 train, 1 tests. Cross-setup (version 120): setups with even numbers train, those with odd ones test.

A mirrored clip keeps its class: no action says with which hand, or to which side, it is done.
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

DATASET = "60 or 120 actions before three cameras (NTU RGB+D), three protocols"
FLIP_SAFE = True

#: in the order of the numbers in the names of files
CLASSES = tuple(
    """drink water|eat meal|brush teeth|brush hair|drop|pick up|throw|sit down|stand up|clapping|reading|writing|tear up paper
put on jacket|take off jacket|put on a shoe|take off a shoe|put on glasses|take off glasses|put on a hat|take off a hat
cheer up|hand waving|kicking something|reach into pocket|hopping|jump up|phone call|play with phone|type on a keyboard
point to something|taking a selfie|check time|rub two hands|nod head|shake head|wipe face|salute|put palms together
cross hands in front|sneeze or cough|staggering|falling down|headache|chest pain|back pain|neck pain|nausea|fan self|punch
kicking|pushing|pat on back|point finger|hugging|giving object|touch pocket|shaking hands|walking towards|walking apart
put on headphone|take off headphone|shoot at basket|bounce ball|tennis bat swing|juggle table tennis ball|hush|flick hair
thumb up|thumb down|make OK sign|make victory sign|staple book|counting money|cutting nails|cutting paper|snap fingers
open bottle|sniff|squat down|toss a coin|fold paper|ball up paper|play magic cube|apply cream on face|apply cream on hand
put on bag|take off bag|put object into bag|take object out of bag|open a box|move heavy objects|shake fist|throw up cap
capitulate|cross arms|arm circles|arm swings|run on the spot|butt kicks|cross toe touch|side kick|yawn|stretch oneself
blow nose|hit with object|wield knife|knock over|grab stuff|shoot with gun|step on foot|high-five|cheers and drink
carry object|take a photo|follow|whisper|exchange things|support somebody|rock-paper-scissors""".replace("\n", "|").split("|")
)

#: subjects that train in the cross-subject protocol of version 60, and those that version 120 adds to them
_SUBJECTS_60 = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
_ADDED = (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, *range(80, 87), 89, *range(91, 96), 97, 98, 100, 103)
_SUBJECTS_120 = _SUBJECTS_60 | frozenset(_ADDED)
_CAMERAS = frozenset((2, 3))

_NUMBERS = r"S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<subject>\d{3})R(?P<replication>\d{3})A(?P<action>\d{3})"
_FORMS = {
    "rgb": NameForm(
        "SsssCcccPpppRrrrAaaa_rgb.avi", re.compile(_NUMBERS + r"_rgb\.avi"), re.compile(r".*_rgb\.avi$"), folders=False, files=True
    ),
    "depth": NameForm("SsssCcccPpppRrrrAaaa", re.compile(_NUMBERS), re.compile(r"S\d+C\d+"), folders=True, files=False),
}
#: the last of each number, by what it counts
_LAST = {"setup": 32, "camera": 3, "subject": 106, "action": 120}


class Options(Vocabulary):
    """Which actions are used, who trains, and what is read."""

    version: Literal[60, 120] = 60
    protocol: Literal["cross-subject", "cross-view", "cross-setup"] = "cross-subject"
    modality: Literal["rgb", "depth"] = "rgb"


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return options.version


def load(root: Path, options: Options) -> ClipSet:
    """The clips under `root`.

    Raises:
        DataMissing: there is none.
        UsageError: the version has no such protocol, a clip's name is not of the form or is there twice, or an action has no clip to
            train on.
    """
    if options.protocol == ("cross-setup" if options.version == 60 else "cross-view"):
        other = "cross-view" if options.version == 60 else "cross-setup"
        fix = f"name cross-subject or {other}"
        raise UsageError(f"version {options.version} has no protocol '{options.protocol}'", where="ntu", fix=fix)
    clips = named_clips.find(root, _FORMS[options.modality])
    return clip_set.clip_set("ntu", root, CLASSES[: options.version], _rows(clips, options), flip_safe=FLIP_SAFE)


def _rows(clips: list[NamedClip], options: Options) -> Iterator[Row]:
    for clip in clips:
        numbers = {what: named_clips.check(clip, what, last) for what, last in _LAST.items()}
        if numbers["action"] <= options.version:
            yield Row(clip.file, numbers["action"] - 1, "train" if _trains(numbers, options) else "test", clip.where)


def _trains(numbers: dict[str, int], options: Options) -> bool:
    if options.protocol == "cross-view":
        return numbers["camera"] in _CAMERAS
    if options.protocol == "cross-setup":
        return numbers["setup"] % 2 == 0
    return numbers["subject"] in (_SUBJECTS_60 if options.version == 60 else _SUBJECTS_120)
