"""HMDB51 on a small tree with its lists and the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import hmdb51
from benchctl.errors import DataMissing, UsageError

LISTS = "testTrainMulti_7030_splits"


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    lists = tmp_path / LISTS
    lists.mkdir()
    (lists / "catch_test_split1.txt").write_text("Goal_#2_(hd)_catch_f_cm_0.avi 1 \nb_catch_1.avi 2 \nc_catch_2.avi 0 \n")
    (lists / "catch_test_split2.txt").write_text("Goal_#2_(hd)_catch_f_cm_0.avi 2 \nb_catch_1.avi 1 \nc_catch_2.avi 1 \n")
    for split in (1, 2):
        (lists / f"brush_hair_test_split{split}.txt").write_text("d_brush_hair_0.avi 1 \ne_brush_hair_0.avi 2 \n")
    names = ("catch/Goal_#2_(hd)_catch_f_cm_0.avi", "catch/b_catch_1.avi", "catch/c_catch_2.avi", "brush_hair/d_brush_hair_0.avi")
    place(tmp_path, *(f"videos/{name}" for name in names))
    return tmp_path


def test_splits(tree: Path) -> None:
    first, second = (hmdb51.load(tree, hmdb51.Options(split=split)) for split in (1, 2))
    assert first.classes == ("brush_hair", "catch")
    assert [(r.id, r.label) for r in first.train] == [
        ("videos/brush_hair/d_brush_hair_0.avi", 0),
        ("videos/catch/Goal_#2_(hd)_catch_f_cm_0.avi", 1),
    ]
    assert [(r.id, r.label) for r in first.test] == [("videos/catch/b_catch_1.avi", 1)]
    assert first.missing == ("videos/brush_hair/e_brush_hair_0.avi",)
    assert (len(second.train), len(second.test)) == (3, 1)
    assert first.flip_safe


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("b_catch_1.avi 1", "'videos/catch/b_catch_1.avi' is listed twice; it is also at "
         f"{LISTS}/catch_test_split1.txt:2; remove one"),
        ("d.avi 3", "not 'file number', with 0, 1 or 2: 'd.avi 3'; repair this line"),
        ("d.avi", "not 'file number', with 0, 1 or 2: 'd.avi'; repair this line"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be(line: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    with (tree / LISTS / "catch_test_split1.txt").open("a") as file:
        file.write(line + "\n")
    assert refusal(UsageError, hmdb51, tree) == f"{LISTS}/catch_test_split1.txt:4: {says}"


def test_a_class_that_lacks_its_list(tree: Path) -> None:
    with pytest.raises(DataMissing, match=r"brush_hair_test_split3\.txt: no such file"):
        hmdb51.load(tree, hmdb51.Options(split=3))
    with pytest.raises(DataMissing, match=r"elsewhere: no <class>_test_split<number>\.txt"):
        hmdb51.load(tree, hmdb51.Options(lists="elsewhere"))
