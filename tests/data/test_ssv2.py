"""Something-Something V2 on a small tree with its lists and the names of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import ssv2
from benchctl.errors import DataMissing, UnknownName, UsageError

LABELS = {"Closing something": "0", "Pushing something from left to right": "2", "Holding something next to something": "1"}
TRAIN = [
    ("101", "Holding [something] next to [something]"),
    ("102", "Closing [something]"),
    ("103", "Pushing [something] from left to right"),
    ("104", "Closing [something]"),
]
VALIDATION = [("201", "Pushing [something] from left to right"), ("202", "Closing [something]")]


def entries(clips: list[tuple[str, str]]) -> str:
    return json.dumps([{"id": i, "label": "closing a box", "template": template, "placeholders": ["a box"]} for i, template in clips])


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "train.json").write_text(entries(TRAIN))
    (tmp_path / "validation.json").write_text(entries(VALIDATION))
    place(tmp_path, *(f"20bn-something-something-v2/{i}.webm" for i, _ in TRAIN + VALIDATION if i != "104"))
    return tmp_path


def test_labels_are_those_of_the_file(tree: Path) -> None:
    clips = ssv2.load(tree, ssv2.Options())
    assert clips.classes == ("Closing something", "Holding something next to something", "Pushing something from left to right")
    assert [(r.path.name, r.label) for r in clips.train] == [("101.webm", 1), ("102.webm", 0), ("103.webm", 2)]
    assert [(r.path.name, r.label) for r in clips.test] == [("201.webm", 2), ("202.webm", 0)]
    assert clips.missing == ("20bn-something-something-v2/104.webm",)
    assert not clips.flip_safe


def test_a_list_of_classes_takes_a_part_in_the_official_order(tree: Path) -> None:
    (tree / "temporal.txt").write_text("Pushing [something] from left to right\n\nClosing something\n")
    clips = ssv2.load(tree, ssv2.Options(class_list="temporal.txt"))
    assert clips.classes == ("Closing something", "Pushing something from left to right")
    assert [(r.path.name, r.label) for r in clips.train] == [("102.webm", 0), ("103.webm", 1)]
    assert [(r.path.name, r.label) for r in clips.test] == [("201.webm", 1), ("202.webm", 0)]


@pytest.mark.parametrize(
    ("kind", "lines", "says"),
    [
        (UnknownName, "Closing something\nPushing something left to right\n", "part.txt:2: unknown class 'Pushing something left to right'; "
         "did you mean 'Pushing something from left to right' or 'Holding something next to something'?"),
        (UnknownName, "Dancing\n", "part.txt:1: unknown class 'Dancing'; the 3 classes are those of labels.json"),
        (UsageError, "Closing something\nClosing [something]\n", "part.txt:2: class 'Closing something' is listed twice; "
         "it is also at part.txt:1; remove one"),
        (UsageError, "Closing something\n\nClosing something\n", "part.txt:3: class 'Closing something' is listed twice; it is also at "
         "part.txt:1; remove one"),
        (UsageError, "\n", "part.txt: no class is listed; write one on each line"),
    ],
)  # fmt: skip
def test_lists_of_classes_that_do_not_match(kind: type[UsageError], lines: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "part.txt").write_text(lines)
    assert refusal(kind, ssv2, tree, class_list="part.txt") == says


def test_the_same_clip_in_both_lists(tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "validation.json").write_text(entries([*VALIDATION, ("102", "Closing [something]")]))
    assert refusal(UsageError, ssv2, tree) == (
        "validation.json: entry 3: '20bn-something-something-v2/102.webm' is listed twice; it is also at train.json: entry 2; remove one"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            entries([("1", "Opening [something]")]),
            "train.json: entry 1: unknown class 'Opening something'; did you mean 'Closing something'?",
        ),
        ('[{"id": "1"}]', "train.json: entry 1: no 'template' that is a text; fetch the file again"),
        ('[{"id": 1, "template": "Closing [something]"}]', "train.json: entry 1: no 'id' that is a text; fetch the file again"),
        ("[3]", "train.json: entry 1: no 'id' that is a text; fetch the file again"),
        ("{}", "train.json: not a list of clips; name the data set's own file"),
        ('[{"id": "1",\n', "train.json:2:1: torn JSON: Expecting property name enclosed in double quotes; fetch the file again"),
    ],
)
def test_torn_lists(content: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "train.json").write_text(content)
    assert refusal(UsageError, ssv2, tree) == says


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"a": "0", "b": "2"}, "labels.json: class 'b' has index '2', not one of its own from 0 to 1; fetch the file again"),
        ({"a": "0", "b": "0"}, "labels.json: class 'b' has index '0', not one of its own from 0 to 1; fetch the file again"),
        ({"a": "-1"}, "labels.json: class 'a' has index '-1', not one of its own from 0 to 0; fetch the file again"),
        ({"a": 0}, "labels.json: class 'a' has index 0, not one of its own from 0 to 0; fetch the file again"),
        (["a"], "labels.json: not an object of class and index; name the data set's own file"),
    ],
)
def test_torn_indices(labels: object, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "labels.json").write_text(json.dumps(labels))
    assert refusal(UsageError, ssv2, tree) == says


def test_a_list_that_is_not_there(tree: Path) -> None:
    with pytest.raises(DataMissing, match=r"test\.json: no such file"):
        ssv2.load(tree, ssv2.Options(test="test.json"))
