"""Kinetics-400: 400 human actions in ten seconds each of videos from YouTube (Kay et al. 2017).

The lists are csv files with the columns `label`, `youtube_id`, `time_start`, `time_end` (and `split`); a clip is called
`<youtube_id>_<start>_<end>.mp4`, both seconds with six digits. Clips lie in folders by class (called as the class, or with `_` for its
spaces), or flat. Classes are numbered in alphabetical order. The list to validate on is tested on, as papers do; in the authors' own
archive it is called `validate.csv`. Videos disappear, so every copy lacks some: those are counted and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchctl.data import annotation_files, clip_set
from benchctl.data.clip_set import ClipSet, Row, Split
from benchctl.errors import UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "400 human actions from YouTube (Kinetics-400)"
#: no class says on which side it is done
FLIP_SAFE = True

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class Options(Vocabulary):
    """Where the lists and the videos are, relative to the data set's folder."""

    train: str = "train.csv"
    test: str = "val.csv"
    #: folders of the videos of each list
    train_videos: str = "train"
    test_videos: str = "val"
    layout: Literal["class-folders", "flat"] = "class-folders"


@dataclass(frozen=True)
class _Listed:
    """One line of a list."""

    label: str
    name: str
    split: Split
    where: str


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """The data set's folder, or None."""
    return clip_set.locate(ref, data_root)


def published_classes(_options: Options) -> int:
    """How many classes the data set has, where it is not there to say so."""
    return 400


def load(root: Path, options: Options) -> ClipSet:
    """The clips of both lists that are there.

    Raises:
        DataMissing: a list is missing, or no clip of it exists.
        UnknownName: a column that a list lacks, or a class to test on that none is trained on; with the nearest ones.
        UsageError: a torn line, a second that is no number, a clip listed twice, a class without training clips.
    """
    train = list(_listed(root / options.train, "train"))
    test = list(_listed(root / options.test, "test"))
    classes = sorted({clip.label for clip in train})
    index = {label: number for number, label in enumerate(classes)}
    rows = [*_rows(root, train, options.train_videos, index, options), *_rows(root, test, options.test_videos, index, options)]
    return clip_set.clip_set("kinetics400", root, classes, annotation_files.in_one_split(rows), flip_safe=FLIP_SAFE)


def _listed(path: Path, split: Split) -> Iterator[_Listed]:
    for where, row in clip_set.read_csv(path, _COLUMNS):
        label, video = row["label"].strip(), row["youtube_id"].strip()
        if not label or not video:
            raise UsageError("empty label" if video else "empty youtube_id", where=where, fix="repair this line")
        start, end = (annotation_files.integer(row[column].strip(), column, where) for column in ("time_start", "time_end"))
        yield _Listed(label, f"{video}_{start:06d}_{end:06d}.mp4", split, where)


def _rows(root: Path, listed: list[_Listed], videos: str, index: dict[str, int], options: Options) -> Iterator[Row]:
    folders: dict[str, str] = {}
    for clip in listed:
        number = annotation_files.class_index(clip.label, index, where=clip.where, source=options.train)
        if clip.label not in folders:
            folders[clip.label] = _folder(root, videos, clip.label, options)
        yield Row(f"{folders[clip.label]}/{clip.name}", number, clip.split, clip.where)


def _folder(root: Path, videos: str, label: str, options: Options) -> str:
    """Of the videos of one class."""
    if options.layout == "flat":
        return videos
    underscored = f"{videos}/{label.replace(' ', '_')}"
    return underscored if (root / underscored).is_dir() else f"{videos}/{label}"
