"""Numbers in the place of classes, and clips that were cut from one video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchctl.data import manifest
from benchctl.data.clip_set import ClipSet
from benchctl.errors import UnknownName, UsageError

HEADER = "path,split,video,stiffness,weight\n"
LINES = "a.mp4,train,v1,1,10\nb.mp4,train,v1,1,10\nc.mp4,train,v2,4,40\nd.mp4,test,v3,2,-5e-1\n"


def load(root: Path, lines: str = LINES, **options: object) -> ClipSet:
    for name in "abcd":
        (root / f"{name}.mp4").write_bytes(b"x")
    (root / "manifest.csv").write_text(HEADER + lines)
    given = {"targets": ("stiffness", "weight"), **options}
    return manifest.load(root, manifest.Options.model_validate(given))


def test_numbers_are_read_in_place_of_classes(tmp_path: Path) -> None:
    clips = load(tmp_path, video_column="video")
    assert (clips.classes, clips.targets, clips.outputs) == ((), ("stiffness", "weight"), 2)
    assert [r.values for r in clips.train + clips.test] == [(1, 10), (1, 10), (4, 40), (2, -0.5)]
    assert [r.video for r in clips.train + clips.test] == ["v1", "v1", "v2", "v3"]
    assert {r.label for r in clips.train + clips.test} == {0}
    assert clips.summary == "manifest: 3 train and 1 test clips with stiffness, weight"


def test_scaled_over_the_training_clips(tmp_path: Path) -> None:
    clips = load(tmp_path)
    mean, deviation = clips.scale
    assert mean.tolist() == [2, 20]
    assert deviation == pytest.approx([2**0.5, 200**0.5])
    scaled = clips.scaled_values(clips.train)
    assert scaled.dtype == np.float32
    assert scaled.mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert scaled.std(0) == pytest.approx([1, 1])
    assert clips.scaled_values(clips.test)[0] == pytest.approx([0, -20.5 / 200**0.5])


def test_a_share_is_drawn_of_all_clips(tmp_path: Path) -> None:
    clips = load(tmp_path)
    assert len(clips.share(0.67, seed=3).train) == 2
    assert len(clips.share(1e-3, seed=3).train) == 1
    assert set(clips.share(0.34, seed=3).train) <= set(clips.share(0.67, seed=3).train)


def test_the_fingerprint_knows_values_and_videos(tmp_path: Path) -> None:
    prints = {
        load(tmp_path).fingerprint,
        load(tmp_path, LINES.replace("c.mp4,train,v2,4,40", "c.mp4,train,v2,4,40.5")).fingerprint,
        load(tmp_path, targets=("weight", "stiffness")).fingerprint,
        load(tmp_path, video_column="video").fingerprint,
    }
    assert len(prints) == 4
    assert load(tmp_path, LINES.replace("4,40", "4.0,4e1")).fingerprint in prints, "another way of writing a number is no other number"


@pytest.mark.parametrize(
    ("lines", "options", "says"),
    [
        (LINES.replace("4,40", "soft,40"), {}, "manifest.csv:4: stiffness 'soft' is not a finite number"),
        (LINES.replace("4,40", "nan,40"), {}, "manifest.csv:4: stiffness 'nan' is not a finite number"),
        (LINES.replace("4,40", "4,-inf"), {}, "manifest.csv:4: weight '-inf' is not a finite number"),
        (LINES.replace("4,40", "4,"), {}, "manifest.csv:4: weight '' is not a finite number"),
        (LINES.replace("4,40", "1,40"), {}, "'stiffness' is 1 for all clips that are trained on"),
        (LINES.replace(",train,", ",test,"), {"train": ["test"], "test": ["train"]}, "value of column 'split': 'train'"),
        (LINES, {"leave_out": ["x"]}, "'leave_out' names classes"),
        (LINES, {"targets": ["weight", "weight"]}, "target 'weight' is there twice"),
        (LINES, {"targets": ["wieght"]}, "'wieght'; did you mean 'weight'?"),
        (LINES.replace("v2", ""), {"video_column": "video"}, "manifest.csv:4: empty video"),
        (LINES.replace("v2", "v1"), {"video_column": "video"}, "manifest.csv:4: video 'v1' is something else"),
        (LINES.replace("test,v3,2,-5e-1", "test,v2,4,40"), {"video_column": "video"}, "manifest.csv:5: video 'v2' is something else"),
    ],
)
def test_bad_numbers_and_videos(lines: str, options: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, UnknownName)) as caught:
        load(tmp_path, lines, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_clip_to_train_on(tmp_path: Path) -> None:
    lines = "absent.mp4,train,v1,1,10\nd.mp4,test,v3,2,3\n"
    with pytest.raises(UsageError, match="no clip to train on"):
        load(tmp_path, lines)


def test_videos_of_classes(tmp_path: Path) -> None:
    clips = load(tmp_path, targets=(), class_column="stiffness", video_column="video", leave_out=("2",))
    assert clips.classes == ("1", "4")
    assert [(r.label, r.video, r.values) for r in clips.train] == [(0, "v1", ()), (0, "v1", ()), (1, "v2", ())]
