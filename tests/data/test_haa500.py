"""HAA500 on a small tree with the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import haa500
from benchctl.errors import UsageError

CLASSES = ("ALS_IceBucket_Challenge", "abseiling")


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    place(tmp_path, *(f"video/{name}/{name}_{number:03}.mp4" for name in CLASSES for number in range(20)))
    return tmp_path


def test_sixteen_train_and_four_test(tree: Path) -> None:
    clips = haa500.load(tree, haa500.Options())
    assert (clips.classes, len(clips.train), len(clips.test)) == (CLASSES, 32, 8)
    assert {r.path.stem[-3:] for r in clips.test} == {"016", "017", "018", "019"}
    assert all(CLASSES[r.label] == r.path.parent.name for r in (*clips.train, *clips.test))
    assert not clips.flip_safe
    assert haa500.load(tree, haa500.Options(flip_safe=True)).flip_safe


@pytest.mark.parametrize("name", ["abseiling_020.mp4", "abseiling_1.mp4", "archery_001.mp4", "abseiling.mp4"])
def test_a_wrong_name_is_named(name: str, tree: Path, place: Callable[..., None], refusal: Callable[..., str]) -> None:
    place(tree, f"video/abseiling/{name}")
    assert refusal(UsageError, haa500, tree) == (
        f"video/abseiling/{name}: not called abseiling_<NNN>.mp4, numbered from 000 to 019; rename it, or take it away"
    )


def test_a_class_without_clips_to_train_on(tree: Path, place: Callable[..., None], refusal: Callable[..., str]) -> None:
    place(tree, "video/archery/archery_017.mp4")
    assert "no clip to train class 'archery' of 'haa500'" in refusal(UsageError, haa500, tree)
