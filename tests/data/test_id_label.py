"""Something-Something V1 and Jester on small trees with their lists and folders of frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from benchctl.data import jester, ssv1
from benchctl.data.decode import decode
from benchctl.errors import UnknownName, UsageError

SETS = [
    pytest.param(ssv1, "something-something-v1", "20bn-something-something-v1", id="ssv1"),
    pytest.param(jester, "jester-v1", "20bn-jester-v1", id="jester"),
]
every_set = pytest.mark.parametrize(("module", "stem", "frames"), SETS)


def make(root: Path, stem: str, frames: str) -> None:
    (root / f"{stem}-labels.csv").write_text("Swiping Left\nSwiping Right\n\nDoing other things\n")
    (root / f"{stem}-train.csv").write_text("34870;Swiping Right\n56557;Doing other things\n129112;Swiping Left\n")
    (root / f"{stem}-validation.csv").write_text("9223;Swiping Left\n107090;Swiping Right\n")
    for number, clip in enumerate((34870, 56557, 129112, 9223)):
        (root / frames / str(clip)).mkdir(parents=True)
        for frame in (1, 2, 3):
            cv2.imwrite(str(root / frames / str(clip) / f"{frame:05}.jpg"), np.full((10, 16, 3), 50 * number + 10 * frame, np.uint8))


@every_set
def test_a_tree(module: ModuleType, stem: str, frames: str, tmp_path: Path) -> None:
    make(tmp_path, stem, frames)
    clips = module.load(tmp_path, module.Options())
    assert clips.classes == ("Swiping Left", "Swiping Right", "Doing other things")
    assert [(r.id, r.label) for r in clips.train] == [(f"{frames}/34870", 1), (f"{frames}/56557", 2), (f"{frames}/129112", 0)]
    assert [(r.id, r.label) for r in clips.test] == [(f"{frames}/9223", 0)]
    assert clips.missing == (f"{frames}/107090",)
    assert clips.flip_safe is module.FLIP_SAFE is False
    assert np.abs(decode(clips.test[0].path, [0, 2])[:, 5, 8].astype(int) - [[160] * 3, [180] * 3]).max() <= 2


@every_set
def test_the_same_clip_in_both_lists(module: ModuleType, stem: str, frames: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    make(tmp_path, stem, frames)
    (tmp_path / f"{stem}-validation.csv").write_text("9223;Swiping Left\n56557;Doing other things\n")
    assert refusal(UsageError, module, tmp_path) == (
        f"{stem}-validation.csv:2: '{frames}/56557' is listed twice; it is also at {stem}-train.csv:2; remove one"
    )


@every_set
@pytest.mark.parametrize(
    ("kind", "line", "says"),
    [
        (UnknownName, "1;Swiping Lef", "unknown class 'Swiping Lef'; did you mean 'Swiping Left'"),
        (UnknownName, "1;Zooming", "unknown class 'Zooming'; the 3 classes are those of"),
        (UsageError, "1", "not 'id;label': '1'; repair this line, or name the list that has labels"),
        (UsageError, ";Swiping Left", "not 'id;label': ';Swiping Left'"),
        (UsageError, "1;", "not 'id;label': '1;'"),
    ],
)
def test_torn_lines(
    kind: type[UsageError], line: str, says: str, module: ModuleType, stem: str, frames: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    make(tmp_path, stem, frames)
    with (tmp_path / f"{stem}-validation.csv").open("a") as file:
        file.write(f"{line}\n")
    assert refusal(kind, module, tmp_path).startswith(f"{stem}-validation.csv:3: {says}")


@every_set
def test_a_class_without_clips_to_train_on(module: ModuleType, stem: str, frames: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    make(tmp_path, stem, frames)
    with (tmp_path / f"{stem}-labels.csv").open("a") as file:
        file.write("Zooming In\n")
    assert "no clip to train class 'Zooming In'" in refusal(UsageError, module, tmp_path)
