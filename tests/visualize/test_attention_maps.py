from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.quiver import Quiver
from torch import Tensor, nn

import benchctl.cli.visualize_attention  # noqa: F401  (importing registers)
from benchctl.cli.app import main
from benchctl.errors import UnknownName, UsageError
from benchctl.visualize import attention, attention_figure
from benchctl.visualize import clip as clips
from benchctl.visualize.attention import AttentionMaps, attention_maps, normalised
from benchctl.visualize.model import LoadedModel, load_model


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def loaded(preset: str, frames: np.ndarray, **changes: object) -> LoadedModel:
    return load_model(preset, frames=len(frames), resolution=frames.shape[1], changes=changes, attention="eager")


def class_row(query_PC: Tensor, key_PC: Tensor, heads: int) -> list[float]:
    """The definition: softmax over all tokens of the first token's scores, mean over heads, without the first token itself."""
    width = query_PC.shape[1] // heads
    total = [0.0] * (len(key_PC) - 1)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = [math.exp(float(query_PC[0, part] @ key[part]) / math.sqrt(width)) for key in key_PC]
        for patch, score in enumerate(scores[1:]):
            total[patch] += score / sum(scores) / heads
    return total


def fed(model: nn.Module, part: nn.Module, clip: Tensor) -> Tensor:
    """What `part` is given."""
    seen: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _part, given: seen.append(given[0]))
    with torch.no_grad():
        model(clip)
    hook.remove()
    return seen[0].double()


@torch.no_grad()
def test_timesformer_is_the_last_layers_spatial_attention(frames):
    of = loaded("timesformer-tiny", frames)
    last = of.model.video.timesformer.encoder.layer[-1].attention.attention
    given_TPC = fed(of.model, last.qkv, of.prepare(frames))
    query, key, _ = (given_TPC @ last.qkv.weight.double().T + last.qkv.bias.double()).chunk(3, dim=-1)
    (maps,) = attention_maps(of, frames)
    assert maps.cells.shape == (4, 4, 4)
    for t in range(4):
        assert maps.cells[t].ravel() == pytest.approx(class_row(query[t], key[t], of.config.heads), rel=1e-5)


@torch.no_grad()
def test_vivit_is_the_last_layers_attention(frames):
    of = loaded("vivit-tiny", frames)
    last = of.model.video.vivit.layers[-1].attention
    given_PC = fed(of.model, last.q_proj, of.prepare(frames))[0]
    query, key = (given_PC @ part.weight.double().T + part.bias.double() for part in (last.q_proj, last.k_proj))
    (maps,) = attention_maps(of, frames)
    assert (maps.cells.shape, maps.span) == ((2, 4, 4), 2)
    assert maps.cells.ravel() == pytest.approx(class_row(query, key, of.config.heads), rel=1e-5)


@pytest.mark.parametrize(("preset", "unit"), [("timesformer-tiny", 2), ("vivit-tiny", 1)])
def test_a_patch_is_where_it_is_in_the_frame(frames, preset, unit):
    """With one layer and head, another patch has another weight, and those of all other patches only change by one factor."""
    of, changed = loaded(preset, frames, layers=1, heads=1), frames.copy()
    # a new class token is 0, and so asks for nothing
    nn.init.normal_(next(p for name, p in of.model.named_parameters() if name.endswith("cls_token")))
    changed[2, 16:32, 48:64] = 255 - changed[2, 16:32, 48:64]
    before, after = (attention_maps(of, each)[0].cells[unit] for each in (frames, changed))
    ratios = np.log(after / before)
    odd = np.abs(ratios - np.median(ratios))
    assert np.unravel_index(odd.argmax(), odd.shape) == (1, 3)
    assert np.delete(odd.ravel(), 1 * 4 + 3).max() < 1e-4 < 1e-2 < odd.max()


def test_moose_has_two_sides_and_flow(frames):
    of = loaded("moose-tiny", frames)
    spatial, temporal = attention_maps(of, frames)
    seen = of.model.look(of.prepare(frames))
    assert (spatial.side, temporal.side) == ("spatial", "temporal")
    assert np.array_equal(spatial.cells, seen.spatial.mean(dim=0).numpy())
    assert np.array_equal(temporal.cells, seen.temporal.mean(dim=0).numpy())
    assert np.array_equal(temporal.flow, seen.flow.numpy())
    assert spatial.cells.shape == (3, 8, 8)
    assert (spatial.flow, temporal.estimator) == (None, "dis")
    (only,) = attention_maps(loaded("moose-tiny", frames, fusion="visual-prior"), frames)
    assert only.side == "temporal"


def test_nothing_is_left_in_the_model(frames):
    of = loaded("timesformer-tiny", frames)
    with torch.no_grad():
        before = of.model(of.prepare(frames))
        attention_maps(of, frames)
        assert torch.equal(of.model(of.prepare(frames)), before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in of.model.modules())


def test_each_map_is_scaled_by_itself():
    cells = np.array([[[1, 3], [2, 5]], [[7, 7], [7, 7]]], np.float32)
    assert normalised(cells).tolist() == [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]]


def test_a_map_is_laid_over_the_frame():
    cells = np.zeros((1, 4, 4), np.float32)
    cells[0, 1, 2] = 0.5
    over = AttentionMaps("m", "w", "", "", 1, cells).over(32)
    # 8 pixels a cell; bilinear between the centres of cells, the highest between the two pixels around its centre
    assert over.shape == (1, 32, 32)
    assert np.argwhere(over[0] == over.max()).tolist() == [[11, 19], [11, 20], [12, 19], [12, 20]]
    assert over[0, 4, 4] == 0


def test_a_method_without_such_a_map_names_those_that_have_one():
    with pytest.raises(UsageError, match=r"^--method videomae-tiny: .* these have: .*moose-tiny.*timesformer-b.*vivit-tiny") as error:
        attention.check("videomae-tiny")
    assert "moss" not in str(error.value)
    with pytest.raises(UnknownName, match="did you mean 'vivit-tiny'"):
        attention.check("vivit-tini")
    attention.check("vivit-b")


# ---- the figure ----


class Looking(nn.Module):
    """A model of somebody else's that says what it attends: the first two heads differ."""

    def look(self, clip: Tensor) -> SimpleNamespace:
        units, side = clip.shape[1] - 1, clip.shape[-1]
        weights = torch.rand(2, units, 4, 4, generator=torch.Generator().manual_seed(0))
        flow = torch.zeros(units, 2, side, side)
        flow[:, 0] = 4
        return SimpleNamespace(spatial=weights, temporal=weights.flip(-1), flow=flow)


@pytest.fixture
def picture() -> attention_figure.Picture:
    shown = clips.read("toy", frames=4, resolution=64)
    of = loaded("vivit-tiny", shown.frames)
    own = LoadedModel(Looking(), of.config, "looking", "weights: mine.pt", of.statistics)
    return attention_figure.Picture(shown, (*attention_maps(of, shown.frames), *attention_maps(own, shown.frames)))


def rows(made) -> list[list]:
    shown = [axes for axes in made.axes if axes.get_position().width > 0.03]
    heights = sorted({round(axes.get_position().y0, 6) for axes in shown}, reverse=True)
    return [[axes for axes in shown if round(axes.get_position().y0, 6) == height] for height in heights]


def test_a_row_of_frames_then_one_of_each_map(picture):
    made = rows(attention_figure.figure(picture))
    assert [len(row) for row in made] == [4, 4, 4, 4]
    assert [np.array_equal(axes.get_images()[0].get_array(), frame) for axes, frame in zip(made[0], picture.clip.frames)] == [True] * 4
    for row, maps in zip(made[1:], picture.maps):
        heat = maps.over(64)
        for t, axes in enumerate(row):
            shown = axes.get_images()
            if t // maps.span < len(heat):
                assert np.array_equal(shown[1].get_array(), heat[t // maps.span])
                assert shown[1].get_clim() == (0, 1)
            else:
                assert not shown
                assert axes.texts[0].get_text() == "no flow\nleaves it"


def test_arrows_are_on_the_temporal_maps_only(picture):
    made = rows(attention_figure.figure(picture))
    arrows = [[[part for part in axes.get_children() if isinstance(part, Quiver)] for axes in row] for row in made]
    assert [[len(each) for each in row] for row in arrows] == [[0] * 4] * 3 + [[1, 1, 1, 0]]
    drawn = arrows[3][0][0]
    assert (set(drawn.U), set(drawn.V)) == ({4.0}, {0.0})
    # each point of the grid within the frame, and the flow's own pixels
    assert drawn.XY.min() >= 0
    assert drawn.XY.max() < 64


def test_the_texts_say_method_weights_side_range_and_meaning(picture):
    made = attention_figure.figure(picture)
    said = " ".join(text.get_text().replace("\n", " ") for text in [*made.texts, *(text for axes in made.axes for text in axes.texts)])
    low, high = (f"{value:.3g}" for value in (picture.maps[1].cells.min(), picture.maps[1].cells.max()))
    for part in (
        "toy clip",
        "vivit-tiny (random weights)",
        "looking temporal (weights: mine.pt)",
        f"spatial {low} to {high}",
        "tubelet of 2",
    ):
        assert part in said
    assert "by an estimator of its own" in said


# ---- the command ----


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", "visualize", "attention", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


SMALL = ["--frames", "4", "--resolution", "64"]


def test_methods_are_drawn_below_each_other(command, tmp_path):
    assert command("toy", "--method", "timesformer-tiny", *SMALL) == (0, "attention-toy.png\n", "")
    both = ["--method", "timesformer-tiny", "--method", "moose-tiny"]
    assert command("toy", *both, *SMALL, "-o", "both.png") == (0, "both.png\n", "")
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("attention-toy.png", "both.png"))
    assert one[..., :3].std() > 0.05
    assert two.shape[0] > 1.5 * one.shape[0]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--method", "moss-tiny"], "--method moss-tiny: 'moss-tiny' has no attention map"),
        (["--method", "vivit-tiny", "--set", "depth=3"], "--set depth: 'vivit-tiny' has no such option"),
        (["--method", "vivit-tiny", "--set", "layers"], "--set layers: expected KEY=VALUE"),
        (["--method", "vivit-tiny", "--method", "moose-tiny", "--set", "layers=2"], "--set: 2 methods"),
        (["--method", "vivit-tiny", "--frames", "3"], "--method vivit-tiny: 3 frames are not a multiple"),
        (["--method", "vivit-tiny", "-o", "a.pdf"], "--output a.pdf: the figure is a png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_that_names_the_option(command, tmp_path, arguments, where):
    code, out, err = command("toy", *SMALL, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"benchctl: {where}")
    assert not list(tmp_path.iterdir())
