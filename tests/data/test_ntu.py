"""NTU RGB+D on small trees with the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchctl.data import ntu
from benchctl.data.decode import decode
from benchctl.errors import UsageError


def name(setup: int, camera: int, subject: int, action: int, replication: int = 1) -> str:
    return f"S{setup:03}C{camera:03}P{subject:03}R{replication:03}A{action:03}"


def test_the_published_subjects_of_the_cross_subject_protocols() -> None:
    sixty = {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}
    more = {
        45,
        46,
        47,
        49,
        50,
        52,
        53,
        54,
        55,
        56,
        57,
        58,
        59,
        70,
        74,
        78,
        80,
        81,
        82,
        83,
        84,
        85,
        86,
        89,
        91,
        92,
        93,
        94,
        95,
        97,
        98,
        100,
        103,
    }

    def trains(version: int) -> set[int]:
        options = ntu.Options(version=version)
        return {subject for subject in range(1, 107) if ntu._trains({"subject": subject}, options)}

    assert trains(60) == sixty
    assert trains(120) == sixty | more
    assert (len(sixty), len(sixty | more)) == (20, 53)


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    """Every action from three cameras: the first 60 by subjects 1 (trains) and 3, the others by 45 (trains) and 51, in two setups."""
    for action in range(1, 121):
        subjects, setups = ((1, 3), (2, 5)) if action <= 60 else ((45, 51), (18, 19))
        for camera in (1, 2, 3):
            for subject in subjects:
                for setup in setups:
                    place(tmp_path, f"nturgb+d_rgb/{name(setup, camera, subject, action)}_rgb.avi")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "protocol", "counts", "trains"),
    [
        (60, "cross-subject", (360, 360), lambda n: n[8:12] == "P001"),
        (60, "cross-view", (480, 240), lambda n: n[4:8] in ("C002", "C003")),
        (120, "cross-subject", (720, 720), lambda n: n[8:12] in ("P001", "P045")),
        (120, "cross-setup", (720, 720), lambda n: n[:4] in ("S002", "S018")),
    ],
)
def test_protocols(version: int, protocol: str, counts: tuple[int, int], trains: Callable[[str], bool], tree: Path) -> None:
    clips = ntu.load(tree, ntu.Options(version=version, protocol=protocol))
    assert (len(clips.classes), len(clips.train), len(clips.test)) == (version, *counts)
    assert all(trains(r.path.name) for r in clips.train)
    assert not any(trains(r.path.name) for r in clips.test)
    assert all(r.label == int(r.path.name[17:20]) - 1 for r in (*clips.train, *clips.test))
    assert clips.flip_safe


def test_names_of_some_classes() -> None:
    assert len(set(ntu.CLASSES)) == 120
    named = {number: ntu.CLASSES[number - 1] for number in (1, 43, 60, 61, 69, 120)}
    assert named == {
        1: "drink water",
        43: "falling down",
        60: "walking apart",
        61: "put on headphone",
        69: "thumb up",
        120: "rock-paper-scissors",
    }


@pytest.mark.parametrize(("version", "protocol", "other"), [(60, "cross-setup", "cross-view"), (120, "cross-view", "cross-setup")])
def test_protocols_that_a_version_does_not_have(version: int, protocol: str, other: str, tree: Path, refusal: Callable[..., str]) -> None:
    assert refusal(UsageError, ntu, tree, version=version, protocol=protocol) == (
        f"ntu: version {version} has no protocol '{protocol}'; name cross-subject or {other}"
    )


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (f"{name(1, 4, 1, 1)}_rgb.avi", "there is no camera 4, only 1 to 3; rename it, or take it away"),
        (f"{name(1, 1, 107, 1)}_rgb.avi", "there is no subject 107, only 1 to 106; rename it, or take it away"),
        (f"{name(33, 1, 1, 1)}_rgb.avi", "there is no setup 33, only 1 to 32; rename it, or take it away"),
        (f"{name(1, 1, 1, 121)}_rgb.avi", "there is no action 121, only 1 to 120; rename it, or take it away"),
        ("S001C001P001R001A1_rgb.avi", "not called SsssCcccPpppRrrrAaaa_rgb.avi; rename it, or take it away"),
    ],
)
def test_wrong_names(file: str, says: str, tree: Path, place: Callable[..., None], refusal: Callable[..., str]) -> None:
    place(tree, file)
    assert refusal(UsageError, ntu, tree) == f"{file}: {says}"


def test_a_clip_that_is_there_twice(tree: Path, place: Callable[..., None], refusal: Callable[..., str]) -> None:
    clip = f"{name(2, 1, 3, 7)}_rgb.avi"
    place(tree, f"again/{clip}")
    assert refusal(UsageError, ntu, tree) == (
        f"nturgb+d_rgb/{clip}: clip '{clip}' is there twice; it is also at again/{clip}; take one away, or name the folder of one kind"
    )


def test_depth_is_in_folders(tree: Path) -> None:
    for action in range(1, 61):
        for subject in (1, 3):
            folder = tree / "nturgb+d_depth_masked" / name(2, 1, subject, action)
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "MDepth-00000001.png"), np.full((4, 6), 2000, np.uint16))
    clips = ntu.load(tree, ntu.Options(modality="depth"))
    assert (len(clips.train), len(clips.test)) == (60, 60)
    assert decode(clips.train[0].path, [0]).shape == (1, 4, 6, 1)
