"""3D Action Pairs on a small tree with the names of its clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchctl.data import action_pairs
from benchctl.data.decode import decode
from benchctl.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    """Twelve actions by ten subjects, three times each; one clip is real."""
    for action in range(1, 13):
        for subject in range(1, 11):
            for repetition in (1, 2, 3):
                place(tmp_path, f"depth/{action}/a{action:02}_s{subject:02}_e{repetition:02}/0001.png")
    cv2.imwrite(str(tmp_path / "depth/1/a01_s01_e01/0001.png"), np.full((4, 6), 900, np.uint16))
    return tmp_path


def test_the_first_five_subjects_test(tree: Path) -> None:
    clips = action_pairs.load(tree, action_pairs.Options())
    assert (len(clips.classes), len(clips.train), len(clips.test)) == (12, 180, 180)
    assert {r.path.name[4:7] for r in clips.test} == {"s01", "s02", "s03", "s04", "s05"}
    assert all(r.label == int(r.path.name[1:3]) - 1 for r in (*clips.train, *clips.test))
    assert clips.flip_safe
    assert decode(next(r.path for r in clips.test if r.path.name == "a01_s01_e01"), [0]).tolist() == np.full((1, 4, 6, 1), 255).tolist()


def test_depth_files_do_as_well(tmp_path: Path, place: Callable[..., None]) -> None:
    names = [f"a{action:02}_s{subject:02}_e01_sdepth.bin" for action in range(1, 13) for subject in (5, 6)]
    place(tmp_path, *names, "a01_s05_e01_skeleton.txt")
    clips = action_pairs.load(tmp_path, action_pairs.Options())
    assert (len(clips.train), len(clips.test)) == (12, 12)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a13_s01_e01", "there is no action 13, only 1 to 12; rename it, or take it away"),
        ("a01_s11_e01", "there is no subject 11, only 1 to 10; rename it, or take it away"),
        ("a01_s00_e01", "there is no subject 0, only 1 to 10; rename it, or take it away"),
        ("a01_s01_1", "not called aXX_sXX_eXX; rename it, or take it away"),
    ],
)
def test_wrong_names(name: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / name).mkdir()
    assert refusal(UsageError, action_pairs, tree) == f"{name}: {says}"


def test_colour_and_depth_are_not_mixed(tree: Path, place: Callable[..., None], refusal: Callable[..., str]) -> None:
    place(tree, "rgb/a03_s04_e02/0001.jpg")
    assert refusal(UsageError, action_pairs, tree).startswith("rgb/a03_s04_e02: clip 'a03_s04_e02' is there twice; it is also at depth/3/")
    assert len(action_pairs.load(tree, action_pairs.Options(folder="depth")).train) == 180
