"""UWA3D Multiview Activity II on small trees with the names of its clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import uwa3d
from benchctl.errors import DataMissing, UsageError


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    """Thirty actions from four views, as folders of JPEGs, and as folders of PNGs with the other order of words."""
    for action in range(1, 31):
        for view in range(1, 5):
            place(tmp_path, f"RGB/a{action:02}_s01_v{view:02}_e00/001.jpg", f"Depth/a{action:02}_s01_e00_v{view:02}/001.png")
    place(tmp_path, "ActionsSkeleton/a01_s01_e00_v01.mat", "readme.txt")
    return tmp_path


@pytest.mark.parametrize("folder", ["RGB", "Depth"])
@pytest.mark.parametrize(("train", "test"), [((1, 2), 3), ((3, 4), 1)])
def test_two_views_train_and_one_tests(folder: str, train: tuple[int, int], test: int, tree: Path) -> None:
    clips = uwa3d.load(tree, uwa3d.Options(train_views=train, test_view=test, folder=folder))
    assert (len(clips.classes), len(clips.train), len(clips.test)) == (30, 60, 30)

    def view(name: str) -> int:
        return next(int(word[1:]) for word in name.split("_") if word.startswith("v"))

    assert {view(r.path.name) for r in clips.train} == set(train)
    assert {view(r.path.name) for r in clips.test} == {test}
    assert all(r.label == int(r.path.name[1:3]) - 1 and r.id.startswith(f"{folder}/") for r in (*clips.train, *clips.test))
    assert clips.flip_safe


def test_videos_do_as_well(tree: Path, place: Callable[..., None]) -> None:
    place(tree, *(f"avi/a{action:02}_s01_v{view:02}_e00_rgb.avi" for action in range(1, 31) for view in (1, 2, 3)))
    assert len(uwa3d.load(tree, uwa3d.Options(folder="avi")).train) == 60


def test_colour_and_depth_are_not_mixed(tree: Path, refusal: Callable[..., str]) -> None:
    assert refusal(UsageError, uwa3d, tree) == (
        "RGB/a01_s01_v01_e00: clip 'a01_s01_v01_e00' is there twice; it is also at Depth/a01_s01_e00_v01; "
        "take one away, or name the folder of one kind"
    )


@pytest.mark.parametrize(("train", "test"), [((1, 2), 2), ((3, 3), 1)])
def test_views_that_are_not_three(train: tuple[int, int], test: int, tree: Path, refusal: Callable[..., str]) -> None:
    assert refusal(UsageError, uwa3d, tree, train_views=train, test_view=test) == (
        f"uwa3d: views {train[0]} and {train[1]} train and {test} tests: these are not three views; name three of 1, 2, 3, 4"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a31_s01_v01_e01", "there is no action 31, only 1 to 30; rename it, or take it away"),
        ("a01_s02_v05_e01", "there is no view 5, only 1 to 4; rename it, or take it away"),
        ("a01_s02_v01", "not called aXX_sXX_vXX_eXX; rename it, or take it away"),
        ("a01_s02_v01_v02", "not called aXX_sXX_vXX_eXX; rename it, or take it away"),
        ("a1_s2_v01_e01", "not called aXX_sXX_vXX_eXX; rename it, or take it away"),
    ],
)
def test_wrong_names(name: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "RGB" / name).mkdir()
    assert refusal(UsageError, uwa3d, tree, folder="RGB") == f"RGB/{name}: {says}"


def test_a_folder_that_is_not_there(tree: Path) -> None:
    with pytest.raises(DataMissing, match="Infrared: the folder cannot be read: No such file or directory"):
        uwa3d.load(tree, uwa3d.Options(folder="Infrared"))
