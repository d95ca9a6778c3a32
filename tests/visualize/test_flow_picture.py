from __future__ import annotations

import colorsys
import math
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.quiver import Quiver

import benchctl.cli.visualize_attention  # noqa: F401  (importing registers)
from benchctl.cli.app import main
from benchctl.errors import MissingError, UsageError, WeightsMissing
from benchctl.layers import torchvision_weights
from benchctl.visualize import clip as clips
from benchctl.visualize import flow, flow_figure
from benchctl.visualize.flow import EstimatedFlow
from benchctl.visualize.toy_clip import SHAPES, toy_clip


@pytest.fixture(scope="module")
def toy() -> tuple[clips.Clip, EstimatedFlow]:
    shown = clips.read("toy", frames=4, resolution=128)
    return shown, flow.estimate(shown.frames, "dis")


@pytest.mark.parametrize("shape", range(len(SHAPES)), ids=lambda n: f"{SHAPES[n].outline}-{'right' if SHAPES[n].group == 0 else 'up'}")
def test_arrows_on_the_toy_clips_groups_point_where_they_go(toy, shape):
    x, y = toy_clip(4, 128).centre(shape, 1)
    found = flow.arrows(toy[1].flow[1], 4)
    near = np.hypot(found.x - x, found.y - y) < 8
    assert near.sum() > 6
    expected = (1, 0) if SHAPES[shape].group == 0 else (0, -1)
    along = found.along_x[near] * expected[0] + found.along_y[near] * expected[1]
    across = found.along_x[near] * expected[1] + found.along_y[near] * expected[0]
    # 0.28 of 128 pixels in three steps; a plain disc's inside has nothing to match, so DIS is a little short there
    assert np.median(along) == pytest.approx(0.28 * 128 / 3, rel=0.1)
    assert np.abs(across).max() < 0.2 * along.max()


def test_colours_are_those_of_the_colour_circle():
    rng = np.random.default_rng(0)
    given = rng.normal(0, 5, (2, 6, 7)).astype(np.float32)
    given[:, 0, 0] = 0
    shown = flow.colours(given, 8.0)
    for y in range(6):
        for x in range(7):
            u, v = given[:, y, x].astype(float)
            expected = colorsys.hsv_to_rgb(math.atan2(v, u) / (2 * math.pi) % 1, min(math.hypot(u, v) / 8, 1), 1)
            assert shown[y, x] == pytest.approx(expected, abs=1e-5)
    assert shown[0, 0].tolist() == [1, 1, 1]


def test_arrows_stand_at_the_centres_of_squares_and_say_the_flow_there():
    given = np.zeros((2, 8, 12), np.float32)
    given[0] = np.arange(8)[:, None] + 10 * np.arange(12)
    given[1] = -1
    given[:, 2, 6] = 0
    found = flow.arrows(given, 4)
    points = {(2, 2), (6, 2), (10, 2), (2, 6), (6, 6), (10, 6)} - {(6, 2)}
    assert set(zip(found.x, found.y)) == points
    assert all(u == y + 10 * x and v == -1 for x, y, u, v in zip(found.x, found.y, found.along_x, found.along_y))


def test_scales_follow_the_motion():
    still = np.zeros((2, 2, 10, 10), np.float32)
    assert flow.longest(still) == pytest.approx(0.1)
    moving = still.copy()
    moving[:, 0] = 3
    moving[0, 0, 0, 0] = 100
    # one pixel in two hundred does not stretch the colours
    assert flow.longest(moving) == pytest.approx(3)
    # 5 times 3 pixels come nearest to a step of 16 and a little more
    assert flow.magnification(moving, 16) == 5
    assert flow.magnification(moving * 20, 16) == 1


def test_what_cannot_be_estimated_names_the_option():
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    with pytest.raises(UsageError, match="--frames: there is no optical flow in one frame"):
        flow.estimate(frames[:1], "dis")
    with pytest.raises(UsageError, match="--resolution 64: raft-small needs frames of 128 pixels"):
        flow.estimate(frames, "raft-small")
    with pytest.raises(UsageError, match="--weights C_T_V2: flow estimator 'dis' has no weights"):
        flow.estimate(frames, "dis", "C_T_V2")


def test_an_estimator_is_said_with_its_weights():
    assert flow.estimate(np.zeros((2, 128, 128, 3), np.uint8), "raft-small", "random").said == "raft-small with random weights"


# ---- the figure ----


def test_frames_with_arrows_then_colours_with_arrows_then_the_key(toy):
    shown, estimated = toy
    made = flow_figure.figure(flow_figure.Picture(shown, estimated))
    arrows = [[part for part in axes.get_children() if isinstance(part, Quiver)] for axes in made.axes]
    assert [len(each) for each in arrows] == [1, 1, 1, 0] * 2
    scale = flow.longest(estimated.flow)
    for t in range(3):
        assert np.array_equal(made.axes[t].get_images()[0].get_array(), shown.frames[t])
        assert np.array_equal(made.axes[4 + t].get_images()[0].get_array(), flow.colours(estimated.flow[t], scale))
    assert f"radius {scale:.1f} px" in [text.get_text() for text in made.axes[7].texts]


def test_the_key_has_the_colours_of_the_directions(toy):
    key = np.asarray(flow_figure.figure(flow_figure.Picture(*toy)).axes[7].get_images()[0].get_array())
    middle, edge = len(key) // 2, int(len(key) * (1.3 - 0.98) / 2.6)
    assert key[middle, middle].tolist() == pytest.approx([1, 1, 1], abs=0.02)
    right, up = np.array([[[1.0]], [[0.0]]]), np.array([[[0.0]], [[-1.0]]])
    assert key[middle, -1 - edge] == pytest.approx(flow.colours(right, 1.0)[0, 0], abs=0.1)
    assert key[edge, middle] == pytest.approx(flow.colours(up, 1.0)[0, 0], abs=0.1)
    assert key[0, 0].tolist() == [1, 1, 1]


def test_arrows_are_as_long_as_is_said(toy):
    shown, estimated = toy
    made = flow_figure.figure(flow_figure.Picture(shown, estimated))
    factor = flow.magnification(estimated.flow, flow_figure.grid_step(128))
    (drawn,) = [part for part in made.axes[0].get_children() if isinstance(part, Quiver)]
    assert (drawn.scale, drawn.scale_units, drawn.angles) == (1 / factor, "xy", "xy")
    said = " ".join(text.get_text().replace("\n", " ") for text in made.texts)
    assert flow_figure.length_words(factor) in said
    assert "pixels of 128 x 128" in said
    assert "estimator dis" in said


def test_clips_without_motion_or_with_many_frames_are_drawn(toy, tmp_path):
    shown, estimated = toy
    still = EstimatedFlow("dis", np.zeros_like(estimated.flow))
    flow_figure.save(flow_figure.Picture(shown, still), tmp_path / "still.png")
    many = clips.Clip("cost $a$.mp4", np.tile(shown.frames, (8, 1, 1, 1)), ())
    flow_figure.save(flow_figure.Picture(many, EstimatedFlow("dis", np.tile(estimated.flow, (11, 1, 1, 1))[:31])), tmp_path / "many.png")
    height, width = matplotlib.image.imread(tmp_path / "many.png").shape[:2]
    assert width <= 15 * 200 + 1 < 20 * height
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MissingError, match="cannot be written"):
        flow_figure.save(flow_figure.Picture(shown, still), tmp_path / "folder.png")


# ---- the command ----


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def no_network(entry: object, otherwise: str) -> None:
        raise WeightsMissing("their server cannot be used", where="weights")

    monkeypatch.setattr(torchvision_weights, "require", no_network)
    monkeypatch.setattr(torchvision_weights, "local", lambda entry: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", "visualize", "flow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


SMALL = ["--frames", "3", "--resolution", "64"]


def test_the_best_estimator_that_can_be_had_is_taken_and_said(command, tmp_path):
    code, out, err = command("toy", *SMALL)
    assert (code, out) == (0, "flow-toy.png\n")
    assert err == "benchctl: flow by dis: RAFT's weights are not here (their server cannot be used)\n"
    assert matplotlib.image.imread(tmp_path / "flow-toy.png")[..., :3].std() > 0.05


def test_an_estimator_can_be_named(command):
    assert command("toy", *SMALL, "--estimator", "farneback", "-o", "a.png") == (0, "a.png\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        (["--weights", "C_T_V2"], 2, "--weights C_T_V2: whose weights?"),
        (["--estimator", "dis", "--weights", "x.pt"], 2, "--weights x.pt: flow estimator 'dis' has no weights"),
        (["--estimator", "raft-small"], 2, "--resolution 64: raft-small needs frames of 128 pixels"),
        (["--estimator", "raft-small", "--resolution", "128"], 3, "weights: their server"),
        (["--frames", "1"], 2, "--frames: there is no optical flow in one frame"),
        (["-o", "none/a.png"], 3, "none: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(command, tmp_path, arguments, code, where):
    ended, out, err = command("toy", *SMALL, *arguments)
    assert (ended, out) == (code, "")
    assert err.splitlines()[-1].startswith(f"benchctl: {where}")
    assert not list(tmp_path.iterdir())
