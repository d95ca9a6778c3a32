"""Diving48 on a small tree with its lists and the names of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchctl.data import diving48
from benchctl.errors import UsageError

VOCABULARY = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]]


def entries(*clips: tuple[str, int]) -> str:
    return json.dumps([{"vid_name": name, "label": label, "start_frame": 0, "end_frame": 120} for name, label in clips])


@pytest.fixture
def tree(tmp_path: Path, place: Callable[..., None]) -> Path:
    (tmp_path / "Diving48_vocab.json").write_text(json.dumps(VOCABULARY))
    (tmp_path / "Diving48_V2_train.json").write_text(entries(("-mmq0PT-u8k_00155", 1), ("2x00lRzlTVQ_00000", 0)))
    (tmp_path / "Diving48_V2_test.json").write_text(entries(("_8Vy3dlHg2w_00000", 1), ("_8Vy3dlHg2w_00001", 0)))
    place(tmp_path, "rgb/-mmq0PT-u8k_00155.mp4", "rgb/2x00lRzlTVQ_00000.mp4", "rgb/_8Vy3dlHg2w_00000.mp4")
    return tmp_path


def test_a_tree(tree: Path) -> None:
    clips = diving48.load(tree, diving48.Options())
    assert clips.classes == ("Back 15som 05Twis FREE", "Back 15som 15Twis FREE")
    assert [(r.id, r.label) for r in clips.train] == [("rgb/-mmq0PT-u8k_00155.mp4", 1), ("rgb/2x00lRzlTVQ_00000.mp4", 0)]
    assert [(r.id, r.label) for r in clips.test] == [("rgb/_8Vy3dlHg2w_00000.mp4", 1)]
    assert clips.missing == ("rgb/_8Vy3dlHg2w_00001.mp4",)
    assert clips.flip_safe


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (entries(("2x00lRzlTVQ_00000", 0)), "entry 1: 'rgb/2x00lRzlTVQ_00000.mp4' is listed twice; it is also at Diving48_V2_train.json: "
         "entry 2; remove one"),
        (entries(("a", 1), ("b", 2)), "entry 2: label 2 is outside the 2 classes"),
        (entries(("a", -1)), "entry 1: label -1 is outside the 2 classes"),
        ('[{"vid_name": "a", "label": "1"}]', "entry 1: no 'label' that is an integer; fetch the file again"),
        ('[{"vid_name": "a", "label": true}]', "entry 1: no 'label' that is an integer; fetch the file again"),
        ('[{"label": 1}]', "entry 1: no 'vid_name' that is a text; fetch the file again"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be(content: str, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "Diving48_V2_test.json").write_text(content)
    assert refusal(UsageError, diving48, tree) == f"Diving48_V2_test.json: {says}"


@pytest.mark.parametrize(
    ("vocabulary", "says"),
    [
        ([*VOCABULARY, VOCABULARY[0]], "class 'Back 15som 05Twis FREE' is listed twice; fetch the file again"),
        (["Back"], "not a list of the words of each class; name the data set's own vocabulary"),
        ({}, "not a list of the words of each class; name the data set's own vocabulary"),
    ],
)
def test_vocabularies_that_cannot_be(vocabulary: object, says: str, tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    assert refusal(UsageError, diving48, tree) == f"Diving48_vocab.json: {says}"


def test_a_vocabulary_that_is_longer_than_what_is_trained(tree: Path, refusal: Callable[..., str]) -> None:
    (tree / "Diving48_vocab.json").write_text(json.dumps([*VOCABULARY, ["Front", "25som", "NoTwis", "PIKE"]]))
    assert "no clip to train class 'Front 25som NoTwis PIKE' of 'diving48'" in refusal(UsageError, diving48, tree)
