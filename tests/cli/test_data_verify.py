"""`benchctl data verify` as a user meets it: real processes on real mp4s."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchctl.cli.app import _register, app
from benchctl.cli.planning import planned
from benchctl.data.encode import write_mp4
from benchctl.engine import models
from benchctl.errors import BenchctlError, DataMissing, UsageError

SUITE = """\
name: t
task: train
methods: [videomae-tiny]
sweep: [{frames: 4, resolution: 32, batch_size: 2}]
budget: {match_on: steps, amount: 2}
dataset: {name: list_file}
"""

_register()


def written(folder: Path, train: int, test: int, *, frames: int = 6, size: int = 32) -> Path:
    """A data set of clips no two of which are alike."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, number in (("train", train), ("test", test)):
        for i in range(number):
            texture = np.kron(rng.integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            write_mp4(folder / f"{split}{i}.mp4", np.stack([np.roll(texture, t, 1) for t in range(frames)]), fps=6)
        (folder / f"{split}.txt").write_text("".join(f"{split}{i}.mp4 {i % 2}\n" for i in range(number)))
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four clips to train on, two to test on, where suites find them."""
    monkeypatch.setenv("BENCHCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "s.yaml").write_text(SUITE)
    return written(tmp_path / "data" / "list_file", 4, 2)


def verify(*arguments: str) -> None:
    app(["data", "verify", *arguments], standalone_mode=False)


def test_the_answer_and_who_uses_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train1.mp4").write_bytes(b"")
    (data / "test.txt").write_text("test0.mp4 0\ntest1.mp4 1\ngone.mp4 1\n")
    verify("list_file", "--processes", "2")
    out, err = capsys.readouterr()
    decoders = re.search(r"^decoders: (\w+) 5$", out, re.M)
    assert decoders
    file = next((tmp_path / "cache" / "index").iterdir())
    megabytes = [
        sum((data / name).stat().st_size for name in names) / 2**20
        for names in (("train0.mp4", "train2.mp4", "train3.mp4"), ("test0.mp4", "test1.mp4"))
    ]
    assert out.splitlines() == [
        "list_file: 7 clips listed, 1 missing, 1 unreadable",
        "  missing: gone.mp4",
        "  unreadable: train1.mp4: the file is empty (0 bytes)",
        f"train: 3 of 4 clips readable, 3.0 s, {megabytes[0]:.1f} MiB",
        "  readable clips per class: min 1, median 1.5, max 2",
        "  fewest: 1; most: 0",
        f"test: 2 of 2 clips readable, 2.0 s, {megabytes[1]:.1f} MiB",
        "  readable clips per class: min 1, median 1, max 1",
        "duration: 5.0 s",
        decoders.group(),
        "in train and in test: no clip",
        f"index: {file} (6 clips decoded now, 0 known before)",
    ]
    assert "unreadable: train1.mp4: the file is empty (0 bytes)\n" in err
    assert len(re.findall(r"^\[\d/6\] ", err, re.M)) == 6

    # the cells of a suite load their clips with it
    plan = planned(str(tmp_path / "s.yaml"), None, None, make_data=False)[0]
    cell = plan.cells[0]
    clips = models.load_clips(cell, plan.root(cell))
    found = models.load_settings(cell, clips).index
    assert found is not None
    assert found.file == file
    info = found.info(clips.train[0])
    assert info is not None
    assert (info.frames, info.width, info.height) == (6, 32, 32)
    shutil.rmtree(file.parent)
    assert models.load_settings(cell, clips).index is None


def test_as_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "test1.mp4").write_bytes(b"no video")
    shutil.copy(data / "train0.mp4", data / "train2.mp4")
    for known in (0, 6):
        verify("list_file", "--json")
        document = json.loads(capsys.readouterr().out)
        assert document["schema_version"] == 1
        assert (document["looked_at"], document["known_before"]) == (6 - known, known)
        assert (document["dataset"], document["listed"], document["missing"], document["leakage"]) == ("list_file", 6, [], [])
        (unreadable,) = document["unreadable"]
        assert unreadable["clip"] == "test1.mp4"
        assert unreadable["reason"].startswith("cannot be opened as video")
        assert (document["train"]["readable"], document["train"]["repeated"]) == (4, 1)
        assert document["test"]["balance"] == {"least": 0, "median": 0.5, "most": 1, "fewest_in": ["1"], "most_in": ["0"]}
        assert sum(document["decoders"].values()) == 5
        assert document["decoder_versions"]["PyAV"]
        assert Path(document["index"]).is_file()


def test_a_clip_in_train_and_in_test_is_refused_here_and_when_a_suite_is_planned(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = str(tmp_path / "s.yaml")
    shutil.copy(data / "train2.mp4", data / "test1.mp4")
    assert planned(suite, None, None, make_data=False)[0].cells, "without an index nothing is known"
    line = "list_file: 'test1.mp4' to test on is also trained on, as 'train2.mp4'; take it out of one of the splits"
    with pytest.raises(UsageError) as error:
        verify("list_file")
    assert (str(error.value), error.value.exit_code) == (line, 2)
    assert "in train and in test: 1\n" in capsys.readouterr().out
    with pytest.raises(UsageError) as error:
        planned(suite, None, None, make_data=False)
    assert str(error.value) == line
    # nothing is learned by a profile
    assert planned(suite, ["task=profile", "budget=null"], None, make_data=False)[0].cells
    # taken out
    (data / "test.txt").write_text("test0.mp4 0\n")
    assert planned(suite, None, None, make_data=False)[0].cells
    verify("list_file")
    assert planned(suite, None, None, make_data=False)[0].cells


def test_a_torn_index_is_told_of_and_made_anew(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify("list_file")
    (file,) = (tmp_path / "cache" / "index").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    capsys.readouterr()
    assert planned(str(tmp_path / "s.yaml"), None, None, make_data=False)[0].cells
    err = capsys.readouterr().err
    assert err == f"benchctl: {file}: it is cut short, or was changed by hand; 'benchctl data verify list_file' makes the index anew\n"
    verify("list_file")
    assert capsys.readouterr().err.startswith(f"benchctl: {file}: it is cut short, or was changed by hand; the index is made anew\n")
    assert file.read_bytes() == whole


def started(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BENCHCTL_")}
    return subprocess.Popen(
        [sys.executable, "-m", "benchctl", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        # where tests run in the background, a shell may have them ignore interrupts, and children inherit it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**inherited, "BENCHCTL_CACHE": str(folder / "cache")},
    )


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_ended_in_the_middle_it_goes_on_from_there(sign: signal.Signals, tmp_path: Path) -> None:
    # long enough that the signal comes before the end on a busy machine too
    root = written(tmp_path / "clips", 24, 16, frames=50, size=160)
    command = ("data", "verify", "list_file", "--root", str(root), "--processes", "2")
    with started(*command, folder=tmp_path) as process:
        assert process.stderr is not None
        assert [process.stderr.readline()[:6] for _ in range(2)] == ["[2/40]", "[4/40]"]
        process.send_signal(sign)
        # ends once no process holds it open, so also says that those that decode have ended
        rest = process.communicate(timeout=60)[1]
    assert "Traceback" not in rest
    reported = int(re.findall(r"^\[(\d+)/40\]", "[4/40]\n" + rest, re.M)[-1])
    if sign == signal.SIGINT:
        assert process.returncode == 130
        said = re.fullmatch(
            r"benchctl: interrupted with (\d+) of 40 clips looked at; the same command goes on from there", rest.splitlines()[-1]
        )
        assert said
        reported = int(said[1])
    (part,) = (tmp_path / "cache" / "index").glob("*.part")
    assert reported <= len(part.read_text().splitlines()) - 1 < 40

    with started(*command, "--json", folder=tmp_path) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    document = json.loads(out)
    assert reported <= document["known_before"] < 40
    assert document["known_before"] + document["looked_at"] == 40
    assert [path.suffix for path in (tmp_path / "cache" / "index").iterdir()] == [".tsv"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ("nothing", UsageError, "unknown dataset 'nothing'"),
        ("egogestar", DataMissing, r"egogestar: no data set 'egogestar'; put it there"),
        ("list_file --set train=1", UsageError, "--set train: .*; options: train, test, "),
        ("list_file --set test=absent.txt", DataMissing, "absent.txt: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(data: Path, arguments: str, kind: type[BenchctlError], message: str) -> None:
    with pytest.raises(kind, match=message):
        verify(*arguments.split())


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for clip in data.glob("*.mp4"):
        clip.write_bytes(b"")
    with pytest.raises(DataMissing, match="none of the 6 clips of 'list_file' can be read; see above why"):
        verify("list_file")
    assert "6 unreadable" in capsys.readouterr().out
