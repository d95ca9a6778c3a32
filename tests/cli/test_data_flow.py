"""`benchctl data flow` as a user meets it: real processes on real mp4s."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchctl.cli.app import _register, app
from benchctl.cli.planning import planned
from benchctl.data import motion_shapes
from benchctl.data.encode import write_mp4
from benchctl.errors import BenchctlError, DataMissing, UsageError
from benchctl.spec import DatasetRef

OPTIONS = {"train_clips_per_class": 1, "test_clips_per_class": 1, "frames": 6, "size": 32}
SUITE = f"""\
name: t
task: train
methods: [{{name: moose-tiny, options: {{precomputed: true}}}}]
sweep: [{{frames: 3, resolution: 32}}]
recipe: {{sampling: dense, frame_stride: 2}}
budget: {{match_on: steps, amount: 2}}
seeds: 0
dataset: {{name: motion_shapes, options: {OPTIONS}}}
""".replace("'", "")

_register()


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
        env={**inherited, "BENCHCTL_DATA": str(folder / "data"), "BENCHCTL_CACHE": str(folder / "cache")},
    )


def benchctl(*arguments: str, folder: Path) -> tuple[int, str, str]:
    with started(*arguments, folder=folder) as process:
        out, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_the_command_that_an_error_names_is_the_one_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    made = motion_shapes.prepare(DatasetRef(name="motion_shapes", options=OPTIONS), tmp_path / "data")
    made.rename(tmp_path / "data" / "motion_shapes")
    (tmp_path / "s.yaml").write_text(SUITE)

    monkeypatch.setenv("BENCHCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHCTL_FLOW", raising=False)
    with pytest.raises(DataMissing, match=r"s.yaml:3:11: moose-tiny: 16 of 16 clips have no flow \(dis, stride 2\)") as error:
        planned(str(tmp_path / "s.yaml"), None, None, make_data=False)
    command = shlex.split(re.search(r"run '(benchctl data flow .*)'$", str(error.value))[1])

    code, out, err = benchctl(*command[1:], folder=tmp_path)
    assert code == 0, err
    size = 16 * (128 + 6 * 2 * 32 * 32 * 2)
    expected = f"motion_shapes, flow by dis, stride 2: 16 clips done, 0 there before, 0 unreadable; {size / 2**20:.1f} MiB in {tmp_path}/cache/flow/dis-"
    assert out.startswith(expected)
    assert [line.split()[0] for line in err.splitlines()] == [f"[{i}/16]" for i in range(1, 17)]
    assert "\x1b" not in out + err

    # from now on there is nothing to complain of
    (cell,) = planned(str(tmp_path / "s.yaml"), None, None, make_data=False)[0].cells
    assert cell.config["precomputed"]


def test_interrupted_it_says_how_far_it_came_and_goes_on_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # long enough that the signal comes before the end on a busy machine too
    videos, clips = tmp_path / "videos", 20
    videos.mkdir()
    rows, columns = np.mgrid[0:160, 0:224]
    texture = (128 + 60 * np.sin(rows / 5) + 60 * np.cos(columns / 7 + rows / 11)).astype(np.uint8)[..., None].repeat(3, axis=2)
    for i in range(clips):
        write_mp4(videos / f"{i}.mp4", np.stack([np.roll(texture, (i, t), (0, 1)) for t in range(60)]), fps=10)
    (videos / "0.mp4").write_bytes(b"no video")
    for split in ("train", "test"):
        (videos / f"{split}.txt").write_text("".join(f"{i}.mp4 0\n" for i in range(clips) if (i < 15) == (split == "train")))
    command = ("data", "flow", "list_file", "--root", str(videos), "--estimator", "dis", "--folder", str(tmp_path / "flow"))

    with started(*command, folder=tmp_path) as process:
        assert process.stderr is not None
        first = [process.stderr.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert first[0].startswith("no flow of 0.mp4: cannot be opened as video")
    assert first[1:] == ["[1/20] 0.mp4\n", "[2/20] 1.mp4\n"]
    assert (process.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    done = int(re.fullmatch(r"benchctl: interrupted with the flow of (\d+) of 20 clips done; the same command goes on from there", last)[1])
    files = list((tmp_path / "flow").rglob("*.npy"))
    assert 1 <= done <= len(files) <= done + 1 < clips - 1  # the last one may have ended without being told
    assert all(np.load(file, mmap_mode="r").shape == (60, 2, 160, 224) for file in files)
    assert not list((tmp_path / "flow").rglob(".*"))

    app([*command], standalone_mode=False)
    out, err = capsys.readouterr()
    assert f"{19 - len(files)} clips done, {len(files)} there before, 1 unreadable; " in out
    assert f"set BENCHCTL_FLOW={tmp_path / 'flow'} so that suites find it" in err


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ("nothing", UsageError, "unknown dataset 'nothing'"),
        ("egogestar", DataMissing, r"\$BENCHCTL_DATA/egogestar: no data set 'egogestar'; put it there"),
        ("motion_shapes --root /nowhere", DataMissing, "/nowhere: no data set 'motion_shapes'"),
        ("motion_shapes --set frames=many", UsageError, "--set frames: .*; options: train_clips_per_class, "),
        ("motion_shapes --weights random", UsageError, "--weights random: whose weights.*--estimator"),
        ("motion_shapes --estimator dis --weights random", UsageError, "flow estimator 'dis' has no weights; leave them out"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: str, kind: type[BenchctlError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path))
    monkeypatch.delenv("BENCHCTL_DATA", raising=False)
    small = [f"--set={key}={value}" for key, value in OPTIONS.items() if f"{key}=" not in arguments] if "motion_shapes" in arguments else []
    with pytest.raises(kind, match=message):
        app(["data", "flow", *arguments.split(), *small], standalone_mode=False)
