"""Kinetics-400 on a small tree with its lists and the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchctl.data import kinetics400
from benchctl.data.decode import decode
from benchctl.data.encode import write_mp4
from benchctl.errors import DataMissing, UnknownName, UsageError

HEADER = "label,youtube_id,time_start,time_end,split\n"
TRAIN = 'riding a bike,-abc_DEF012,12,22,train\nabseiling,AAAAAAAAAAA,0,10,train\n"passing American football (in game)",b,3,13,train\n'
VAL = "abseiling,CCCCCCCCCCC,100,110,val\nriding a bike,ddddddddddd,7,17,val\n"


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    (tmp_path / "train.csv").write_text(HEADER + TRAIN)
    (tmp_path / "val.csv").write_text(HEADER + VAL)
    place(
        tmp_path,
        "train/riding a bike/-abc_DEF012_000012_000022.mp4",
        "train/abseiling/AAAAAAAAAAA_000000_000010.mp4",
        "train/passing American football (in game)/b_000003_000013.mp4",
        "val/abseiling/CCCCCCCCCCC_000100_000110.mp4",
    )
    return tmp_path


def test_classes_in_alphabetical_order_and_missing_clips_counted(tree: Path) -> None:
    clips = kinetics400.load(tree, kinetics400.Options())
    assert clips.classes == ("abseiling", "passing American football (in game)", "riding a bike")
    assert [(r.id, r.label) for r in clips.train] == [
        ("train/riding a bike/-abc_DEF012_000012_000022.mp4", 2),
        ("train/abseiling/AAAAAAAAAAA_000000_000010.mp4", 0),
        ("train/passing American football (in game)/b_000003_000013.mp4", 1),
    ]
    assert [(r.id, r.label) for r in clips.test] == [("val/abseiling/CCCCCCCCCCC_000100_000110.mp4", 0)]
    assert clips.missing == ("val/riding a bike/ddddddddddd_000007_000017.mp4",)
    assert clips.flip_safe


def test_folders_of_classes_may_have_underscores(tree: Path) -> None:
    whole = kinetics400.load(tree, kinetics400.Options())
    for split in ("train", "val"):
        for folder in list((tree / split).iterdir()):
            folder.rename(tree / split / folder.name.replace(" ", "_"))
    underscored = kinetics400.load(tree, kinetics400.Options())
    assert [r.path.name for r in underscored.train] == [r.path.name for r in whole.train]
    assert len(underscored.test) == 1


def test_a_flat_copy_with_other_names(tree: Path) -> None:
    (tree / "videos").mkdir()
    for file in [*tree.glob("train/*/*.mp4"), *tree.glob("val/*/*.mp4")]:
        file.rename(tree / "videos" / file.name)
    (tree / "val.csv").rename(tree / "validate.csv")
    options = kinetics400.Options(test="validate.csv", train_videos="videos", test_videos="videos", layout="flat")
    clips = kinetics400.load(tree, options)
    assert (len(clips.train), len(clips.test), len(clips.missing)) == (3, 1, 1)
    assert clips.train[0].id == "videos/-abc_DEF012_000012_000022.mp4"
    with pytest.raises(DataMissing, match=r"val\.csv: no such file"):
        kinetics400.load(tree, kinetics400.Options())


def test_a_clip_of_the_tree_decodes(tree: Path, textured_frames: Callable[..., np.ndarray]) -> None:
    write_mp4(tree / "val/abseiling/CCCCCCCCCCC_000100_000110.mp4", textured_frames(4), fps=10)
    clips = kinetics400.load(tree, kinetics400.Options())
    assert decode(clips.test[0].path, [3]).shape == (1, 48, 64, 3)


def test_the_same_clip_in_both_lists(tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "val.csv").write_text(HEADER + VAL + "abseiling,AAAAAAAAAAA,0,10,val\n")
    assert refusal(UsageError, kinetics400, tree) == (
        "val.csv:4: 'AAAAAAAAAAA_000000_000010.mp4' is listed twice, to train and to test on; it is also at train.csv:3; remove one"
    )


def test_a_clip_twice_in_one_list(tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "train.csv").write_text(HEADER + TRAIN + "abseiling,AAAAAAAAAAA,0,10,train\n")
    assert refusal(UsageError, kinetics400, tree).startswith(
        "train.csv:5: 'train/abseiling/AAAAAAAAAAA_000000_000010.mp4' is listed twice; it is also at train.csv:3"
    )


@pytest.mark.parametrize(
    ("kind", "line", "says"),
    [
        (UnknownName, "abseilin,e,0,10,val", "val.csv:4: unknown class 'abseilin'; did you mean 'abseiling'?"),
        (UnknownName, "yoga,e,0,10,val", "val.csv:4: unknown class 'yoga'; the 3 classes are those of train.csv"),
        (UsageError, "abseiling,e,0.5,10,val", "val.csv:4: time_start '0.5' is not an integer from 0; repair this line"),
        (UsageError, "abseiling,e,0,-3,val", "val.csv:4: time_end '-3' is not an integer from 0; repair this line"),
        (UsageError, ",e,0,10,val", "val.csv:4: empty label; repair this line"),
        (UsageError, "abseiling,,0,10,val", "val.csv:4: empty youtube_id; repair this line"),
        (UsageError, "abseiling,e,0,10", "val.csv:4: 4 fields, and the header has 5; repair this line"),
    ],
)
def test_torn_lines(kind: type[UsageError], line: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "val.csv").write_text(HEADER + VAL + line + "\n")
    assert refusal(kind, kinetics400, tree) == says
