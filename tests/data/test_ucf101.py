"""UCF101 on a small tree with its lists and the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import ucf101
from benchctl.errors import DataMissing, UnknownName, UsageError


def clip(name: str, group: int) -> str:
    return f"{name}/v_{name}_g{group:02}_c01.avi"


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 Archery\n")
    (lists / "trainlist01.txt").write_bytes(f"{clip('ApplyEyeMakeup', 8)} 1\r\n{clip('Archery', 8)} 2\r\n".encode())
    (lists / "testlist01.txt").write_bytes(f"{clip('Archery', 1)}\r\n{clip('ApplyEyeMakeup', 1)}\r\n".encode())
    (lists / "trainlist02.txt").write_text(f"{clip('ApplyEyeMakeup', 1)} 1\n{clip('Archery', 1)} 2\n")
    (lists / "testlist02.txt").write_text(f"{clip('ApplyEyeMakeup', 8)}\n")
    place(tmp_path, *(f"UCF-101/{clip(name, group)}" for name in ("ApplyEyeMakeup", "Archery") for group in (1, 8)))
    return tmp_path


def test_splits(tree: Path) -> None:
    first, second = (ucf101.load(tree, ucf101.Options(split=split)) for split in (1, 2))
    assert first.classes == ("ApplyEyeMakeup", "Archery")
    assert [(r.id, r.label) for r in first.train] == [(f"UCF-101/{clip('ApplyEyeMakeup', 8)}", 0), (f"UCF-101/{clip('Archery', 8)}", 1)]
    assert [(r.id, r.label) for r in first.test] == [(f"UCF-101/{clip('Archery', 1)}", 1), (f"UCF-101/{clip('ApplyEyeMakeup', 1)}", 0)]
    assert {r.id for r in second.train} == {r.id for r in first.test}
    assert first.flip_safe
    with pytest.raises(DataMissing, match=r"trainlist03\.txt: no such file"):
        ucf101.load(tree, ucf101.Options(split=3))


@pytest.mark.parametrize(
    ("kind", "file", "line", "says"),
    [
        (UsageError, "testlist01.txt", clip("Archery", 8), f"'UCF-101/{clip('Archery', 8)}' is listed twice; it is also at "
         "ucfTrainTestlist/trainlist01.txt:2; remove one"),
        (UsageError, "trainlist01.txt", f"{clip('Archery', 2)} 1", "label 1 is not that of the folder, which classInd.txt gives as 2; "
         "repair this line, or classInd.txt"),
        (UsageError, "trainlist01.txt", clip("Archery", 2), f"not 'path number': '{clip('Archery', 2)}'; repair this line"),
        (UsageError, "trainlist01.txt", f"{clip('Archery', 2)} two", "label 'two' is not an integer from 0; repair this line"),
        (UnknownName, "testlist01.txt", clip("Archerie", 2), "unknown class 'Archerie'; did you mean 'Archery'?"),
        (UsageError, "classInd.txt", "4 BabyCrawling", "not '3 class', with a class of its own: '4 BabyCrawling'; fetch the file again"),
        (UsageError, "classInd.txt", "3 Archery", "not '3 class', with a class of its own: '3 Archery'; fetch the file again"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be(kind: type[UsageError], file: str, line: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    with (tree / "ucfTrainTestlist" / file).open("a") as out:
        out.write(line + "\n")
    assert refusal(kind, ucf101, tree) == f"ucfTrainTestlist/{file}:3: {says}"


def test_a_class_that_no_list_has(tree: Path, refusal: Callable[..., str]) -> None:
    with (tree / "ucfTrainTestlist" / "classInd.txt").open("a") as file:
        file.write("3 BabyCrawling\n")
    assert "no clip to train class 'BabyCrawling' of 'ucf101'" in refusal(UsageError, ucf101, tree)
