"""`benchctl data make`: the folder on stdout, how far it is on stderr."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from benchctl import lookup
from benchctl.cli.app import _register, app
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

_register()
MAKE = ["data", "make", "motion_shapes", "--set", "train_clips_per_class=3", "--set", "test_clips_per_class=1", "--set", "frames=3"]
EASY = ["--set", "size=32", "--set", "difficulty=easy", "--set", "motions=[left/right, grow/shrink, approach/part]"]


def test_progress_goes_to_stderr(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, [*MAKE, *EASY, "--folder", str(tmp_path)])
    assert made.exit_code == 0
    folder = Path(made.stdout.strip())
    assert folder.parent == tmp_path
    assert len(list(folder.rglob("*.mp4"))) == 24
    lines = made.stderr.splitlines()
    assert lines == [f"[{done}/24] clips of motion_shapes" for done in range(2, 25, 2)]
    again = CliRunner().invoke(app, [*MAKE, *EASY, "--folder", str(tmp_path)])
    assert (again.stdout, again.stderr) == (made.stdout, "")


def test_a_data_set_from_elsewhere_may_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(ref: DatasetRef, cache: Path) -> Path:
        return cache / ref.name

    monkeypatch.setattr(lookup, "load", lambda *_: SimpleNamespace(Options=Vocabulary, prepare=prepare))
    made = CliRunner().invoke(app, ["data", "make", "other", "--folder", str(tmp_path)])
    assert (made.exit_code, made.stdout, made.stderr) == (0, f"{tmp_path}/other\n", "")
