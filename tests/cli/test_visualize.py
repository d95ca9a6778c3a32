"""`benchctl visualize stss` as a user meets it."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import pytest

from benchctl.cli.app import main

SMALL = ["--frames", "4", "--resolution", "64", "--window", "3,5,5"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs the command in an empty folder, and gives its exit code and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", "visualize", "stss", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_the_toy_clip_needs_no_options_but_a_size(command, tmp_path):
    code, out, err = command("toy", *SMALL)
    assert (code, out, err) == (0, "stss-toy.png\n", "")
    height, width = matplotlib.image.imread(tmp_path / "stss-toy.png").shape[:2]
    # frames; three orders for each of the two queries; three norms
    assert height > width


def test_fewer_orders_make_a_lower_figure(command, tmp_path):
    assert command("toy", *SMALL, "-o", "all.png")[0] == 0
    assert command("toy", *SMALL, "--orders", "2", "--query", "1,30,30", "-o", "one.png")[0] == 0
    heights = {name: matplotlib.image.imread(tmp_path / name).shape[0] for name in ("all.png", "one.png")}
    assert heights["one.png"] < heights["all.png"] / 2


def test_a_method_is_an_encoder(command):
    assert command("toy", "--frames", "4", "--resolution", "64", "--encoder", "moss-tiny", "-o", "a.png") == (0, "a.png\n", "")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--query", "9,1,1"], "--query 9,1,1: outside the clip"),
        (["--query", "1,64,1"], "--query 1,64,1: outside the clip"),
        (["--query", "1,2"], "--query 1,2: expected FRAME,X,Y"),
        (["--query", "a,b,c"], "--query a,b,c: expected whole numbers"),
        (["--query", "0,0,0"] * 5, "--query: 5 queries"),
        (["--window", "4,5,5"], "--window 4,5,5: window side L is 4"),
        (["--window", "5"], "--window 5: expected L,U,V"),
        (["--orders", "0"], "--orders: there is no order 0"),
        (["--orders", "1,5"], "--orders: there is no order 5"),
        (["--orders", ""], "--orders : expected whole numbers"),
        (["--encoder", "mos-s"], "--encoder: unknown method 'mos-s'; did you mean 'moss-s'"),
        (["--encoder", "timesformer-tiny"], "--encoder: 'timesformer-tiny' computes no"),
        (["--pretrained"], "--pretrained: 'pixels' has no weights"),
        (["--resolution", "60"], "--resolution: 60 is not a multiple"),
        (["--stride", "2"], "--stride 2: the toy clip"),
        (["-o", "a.pdf"], "--output a.pdf: the figure is a png"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_that_names_the_option(command, tmp_path, arguments, where):
    code, out, err = command("toy", "--frames", "4", "--resolution", "64", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"benchctl: {where}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_video_is_one_line_that_names_it(command, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    code, out, err = command("x.mp4")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("benchctl: x.mp4: cannot be opened as video")
    assert command("none.mp4")[2] == "benchctl: none.mp4: no such file\n"


def test_a_folder_that_is_not_there_is_said_before_anything_is_computed(command):
    code, _, err = command("toy", "-o", "none/a.png")
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith("benchctl: none: no such folder")


def test_a_real_clip_is_drawn(command, real_data, tmp_path):
    file = real_data / "clips" / "x_vp9_240p.webm"
    if not file.is_file():
        pytest.skip(f"no {file.name} in {file.parent}")
    assert command(str(file), *SMALL, "--stride", "2") == (0, "stss-x_vp9_240p.png\n", "")
    assert matplotlib.image.imread(tmp_path / "stss-x_vp9_240p.png").std() > 0.05


def test_help_names_the_picture(command):
    code, out, _ = command("--help")
    assert code == 0
    assert "--query" in out
    assert "--encoder" in out
