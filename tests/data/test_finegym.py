"""FineGym on a small tree with its lists and the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import finegym
from benchctl.errors import DataMissing, UsageError


def name(number: int) -> str:
    return f"A0xAXXysHUo_E_{number:06}_{number + 10:06}_A_0003_0005"


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    """One clip to train on of each class of both lists, and three to test on."""
    for classes in (99, 288):
        lines = [f"{name(label)} {label}" for label in range(classes)]
        (tmp_path / f"gym{classes}_train_element_v1.0.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / f"gym{classes}_val_element.txt").write_text("".join(f"{name(500 + i)} {i}\n" for i in range(3)))
    place(tmp_path, *(f"videos/{name(number)}.mp4" for number in (*range(288), 500, 502)))
    return tmp_path


@pytest.mark.parametrize("classes", [99, 288])
def test_both_lists(classes: int, tree: Path) -> None:
    clips = finegym.load(tree, finegym.Options(classes=classes))
    assert (len(clips.classes), len(clips.train), len(clips.test)) == (classes, classes, 2)
    assert [r.label for r in clips.train] == list(range(classes))
    assert [(r.id, r.label) for r in clips.test] == [(f"videos/{name(500)}.mp4", 0), (f"videos/{name(502)}.mp4", 2)]
    assert clips.missing == (f"videos/{name(501)}.mp4",)
    assert clips.flip_safe


def test_other_places_and_versions(tree: Path) -> None:
    (tree / "annotations").mkdir()
    for file in tree.glob("*.txt"):
        file.rename(tree / "annotations" / file.name.replace("v1.0", "v1.1"))
    assert len(finegym.load(tree, finegym.Options(lists="annotations", version="1.1")).train) == 99
    with pytest.raises(DataMissing, match=r"annotations/gym99_train_element_v1\.0\.txt: no such file"):
        finegym.load(tree, finegym.Options(lists="annotations"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{name(7)} 7", f"'videos/{name(7)}.mp4' is listed twice; it is also at gym99_train_element_v1.0.txt:8; remove one"),
        (f"{name(600)} 99", "label 99 is outside the 99 classes"),
        (f"{name(600)} -1", "label '-1' is not an integer from 0; repair this line"),
        (f"{name(600)}", f"not 'name label': '{name(600)}'; repair this line"),
        (
            "A0xAXXysHUo_E_000000_000010 3",
            "'A0xAXXysHUo_E_000000_000010' is not called <id>_E_<start>_<end>_A_<start>_<end>; repair this line",
        ),
    ],
)
def test_lines_that_cannot_be(line: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    with (tree / "gym99_val_element.txt").open("a") as file:
        file.write(line + "\n")
    assert refusal(UsageError, finegym, tree) == f"gym99_val_element.txt:4: {says}"


def test_a_class_that_nothing_trains(tree: Path, refusal: Callable[..., str]) -> None:
    (tree / f"videos/{name(42)}.mp4").unlink()
    assert "no clip to train class '42' of 'finegym' (2 listed files are missing)" in refusal(UsageError, finegym, tree)
