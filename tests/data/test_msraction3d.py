"""MSRAction3D on a small tree with the names of its files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from benchctl import lookup
from benchctl.data import msraction3d
from benchctl.errors import DataMissing, UsageError
from benchctl.spec import DatasetRef


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """20 actions by subjects 1, 2 and 5, twice each, of 2 frames of 4 x 3 pixels."""
    content = struct.pack("<III", 2, 4, 3) + struct.pack("<I", 1000) * 24
    for action in range(1, 21):
        for subject in (1, 2, 5):
            for repetition in (1, 2):
                (tmp_path / f"a{action:02}_s{subject:02}_e{repetition:02}_sdepth.bin").write_bytes(content)
    return tmp_path


def test_odd_subjects_train_and_even_ones_test(tree: Path) -> None:
    clips = msraction3d.load(tree, msraction3d.Options())
    assert (len(clips.classes), len(clips.train), len(clips.test)) == (20, 80, 40)
    assert {record.id[4:7] for record in clips.train} == {"s01", "s05"}
    assert {record.id[4:7] for record in clips.test} == {"s02"}
    assert not clips.flip_safe
    for record in (*clips.train, *clips.test):
        assert record.label == int(record.id[1:3]) - 1
    assert (clips.classes[0], clips.classes[6], clips.classes[19]) == ("high arm wave", "draw x", "pickup and throw")


def test_clips_may_lie_in_a_folder_within(tree: Path) -> None:
    whole = msraction3d.load(tree, msraction3d.Options())
    (tree / "Depth").mkdir()
    for file in tree.glob("*.bin"):
        file.rename(tree / "Depth" / file.name)
    inside = msraction3d.load(tree, msraction3d.Options())
    assert [f"Depth/{record.id}" for record in whole.train] == [record.id for record in inside.train]


@pytest.mark.parametrize(
    ("name", "what"),
    [("a21_s01_e01_sdepth.bin", "no action 21"), ("a00_s01_e01_sdepth.bin", "no action 0"), ("a1_s01_e01_sdepth.bin", "not called")],
)
def test_a_wrong_name_is_named(tree: Path, name: str, what: str) -> None:
    (tree / name).write_bytes(b"")
    with pytest.raises(UsageError, match=what) as caught:
        msraction3d.load(tree, msraction3d.Options())
    assert name in str(caught.value)


def test_an_action_without_a_clip_to_train_on(tree: Path) -> None:
    for file in tree.glob("a08_s0[15]_*"):
        file.unlink()
    with pytest.raises(UsageError, match="no clip to train class 'draw tick'"):
        msraction3d.load(tree, msraction3d.Options())


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no clip to train or test on"):
        msraction3d.load(tmp_path, msraction3d.Options())


def test_it_is_found_by_name(tree: Path) -> None:
    module = lookup.load("dataset", "msraction3d")
    assert module.locate(DatasetRef(name="msraction3d", root=str(tree)), None) == tree
