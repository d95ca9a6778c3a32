from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.quiver import Quiver
from matplotlib.text import Annotation
from torch import Tensor, nn

import benchctl.cli.visualize_attention  # noqa: F401  (importing registers)
from benchctl.cli.app import main
from benchctl.errors import UnknownName, UsageError
from benchctl.layers.videomae import VideoMAE
from benchctl.methods.timesformer import TimeSformer
from benchctl.methods.vivit import ViViT
from benchctl.visualize import attention, attention_figure
from benchctl.visualize import clip as clips
from benchctl.visualize.attention import AttentionMaps, attention_maps, normalised
from benchctl.visualize.model import LoadedModel, load_model


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def loaded(preset: str, frames: np.ndarray, **changes: object) -> LoadedModel:
    return load_model(preset, frames=len(frames), resolution=frames.shape[1], changes=changes, attention="eager")


def row(query_C: Tensor, key_PC: Tensor, heads: int) -> list[float]:
    """The definition: softmax over all tokens of one token's scores, mean over heads."""
    width = len(query_C) // heads
    total = [0.0] * len(key_PC)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = [math.exp(float(query_C[part] @ key[part]) / math.sqrt(width)) for key in key_PC]
        for token, score in enumerate(scores):
            total[token] += score / sum(scores) / heads
    return total


def class_row(query_PC: Tensor, key_PC: Tensor, heads: int) -> list[float]:
    """Of the first token on all others."""
    return row(query_PC[0], key_PC, heads)[1:]


def mean_row(query_PC: Tensor, key_PC: Tensor, heads: int) -> list[float]:
    """Of all tokens on all, in the mean."""
    return np.mean([row(query, key_PC, heads) for query in query_PC], axis=0).tolist()


def fed(model: nn.Module, part: nn.Module, clip: Tensor) -> Tensor:
    """What `part` is given."""
    seen: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _part, given: seen.append(given[0]))
    with torch.no_grad():
        model(clip)
    hook.remove()
    return seen[0].double()


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules of each layer that hold its queries' and keys' weights."""
    if isinstance(model, TimeSformer):
        return [layer.attention.attention for layer in model.video.timesformer.encoder.layer]
    if isinstance(model, ViViT):
        return [layer.attention for layer in model.video.vivit.layers]
    if isinstance(model, VideoMAE):
        return [layer.attention.attention for layer in model.video.videomae.encoder.layer]
    return [block.attn for block in model.video.encoder.vit.blocks]


def projections(block: nn.Module) -> tuple[tuple[Tensor, Tensor | float], ...]:
    """Weights and biases of the queries and of the keys, in float64."""
    if hasattr(block, "qkv"):
        weights, biases = (x.double().chunk(3) for x in (block.qkv.weight, block.qkv.bias))
        return tuple(zip(weights[:2], biases[:2]))
    parts = (block.q_proj, block.k_proj) if hasattr(block, "q_proj") else (block.query, block.key)
    return tuple((part.weight.double(), 0.0 if part.bias is None else part.bias.double()) for part in parts)


def entrance(block: nn.Module) -> nn.Module:
    """The first linear layer of an attention: it is given the tokens."""
    return next(part for part in block.children() if isinstance(part, nn.Linear))


#: one for each way in which attention is found, and what a map is there
KINDS = {
    "timesformer-tiny": class_row,
    "vivit-tiny": class_row,
    "vit-tiny": class_row,
    "vit-finetune-tiny": class_row,
    "videomae-tiny": mean_row,
    "time-vit-tiny": class_row,
    "time-videomae-tiny": mean_row,
}


def read(preset: str, frames: np.ndarray) -> np.ndarray:
    """As many and as small frames as the preset reads for what others read as `frames`."""
    if not preset.startswith("time-"):
        return frames
    return np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


def awake(of: LoadedModel) -> LoadedModel:
    """With weights of which no attention is nearly even; a new class token may be 0, and so ask for nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in of.model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return of


@torch.no_grad()
@pytest.mark.parametrize("preset", KINDS)
def test_each_layers_map_is_softmax_of_its_scores_averaged_over_heads(frames, preset):
    of, given = awake(loaded(preset, frames)), read(preset, frames)
    found = attention_maps(of, given, "all")
    assert [maps.layer for maps in found] == [f"layer {number} of 4" for number in (1, 2, 3, 4)]
    for block, maps in zip(blocks(of.model), found, strict=True):
        given_NPC = fed(of.model, entrance(block), of.prepare(given))
        query, key = (given_NPC @ weight.T + bias for weight, bias in projections(block))
        expected = [KINDS[preset](one, other, 3) for one, other in zip(query, key)]
        units = 2 if maps.span == 2 else 4
        assert maps.cells.shape == (units, 4, 4)
        assert maps.cells.ravel() == pytest.approx(np.ravel(expected), rel=1e-5)
        # it says something: no map is even
        assert maps.cells.max() > 1.2 * maps.cells.min()


@torch.no_grad()
@pytest.mark.parametrize("preset", KINDS)
def test_a_layer_that_asks_for_nothing_is_even_and_the_others_are_not(frames, preset):
    """Queries of layer 2 are 0, and so each token has the same weight: 1 of all that there are."""
    of, given = awake(loaded(preset, frames)), read(preset, frames)
    block = blocks(of.model)[1]
    for part in [block.qkv] if hasattr(block, "qkv") else [block.q_proj if hasattr(block, "q_proj") else block.query]:
        part.weight[: part.in_features] = 0
        if part.bias is not None:
            part.bias[: part.in_features] = 0
    one, two, three, four = (maps.cells for maps in attention_maps(of, given, "all"))
    tokens = (16 if two.shape[0] == 4 else two.size) + (KINDS[preset] is class_row)
    assert two == pytest.approx(1 / tokens, rel=1e-6)
    assert all(cells.max() > 1.2 * cells.min() for cells in (one, three, four))


@pytest.mark.parametrize("preset", KINDS)
def test_layers_are_those_asked_for_in_that_order(frames, preset):
    of, given = awake(loaded(preset, frames)), read(preset, frames)
    every = attention_maps(of, given, "all")
    for number, maps in enumerate(every):
        assert not any(np.allclose(maps.cells, other.cells, rtol=1e-2, atol=0) for other in every[:number])
    (last,) = attention_maps(of, given)
    assert np.array_equal(last.cells, every[-1].cells)
    assert (last.layer, "last layer" in last.meaning) == ("", True)
    some = attention_maps(of, given, (3, 1, 3))
    assert [maps.layer for maps in some] == ["layer 3 of 4", "layer 1 of 4"]
    assert all(np.array_equal(maps.cells, every[number - 1].cells) for maps, number in zip(some, (3, 1)))
    assert all("layers 3, 1 of 4" in maps.meaning for maps in some)


@pytest.mark.parametrize(("preset", "layers", "what"), [("vit-tiny", (1, 5), "--layers 5: 'vit-tiny' has 4 layers of attention; name"),
    ("vit-tiny", (0,), "--layers 0: 'vit-tiny' has 4 layers"), ("moose-tiny", (2,), "--layers 2: 'moose-tiny' has 1 layer of")])  # fmt: skip
def test_a_layer_that_is_not_there_says_how_many_there_are(frames, preset, layers, what):
    with pytest.raises(UsageError, match=f"^{what}"):
        attention_maps(loaded(preset, frames), frames, layers)


@pytest.mark.parametrize(("preset", "host"), [("time-vit-tiny", "vit-tiny"), ("time-videomae-tiny", "videomae-tiny")])
def test_behind_a_time_layer_are_the_maps_of_the_host_over_the_grids(frames, preset, host):
    of, small = awake(loaded(preset, frames)), read(preset, frames)
    found = attention_maps(of, small, "all")
    # cell (row, column) of grid t, spatial arrangement: frame 4 (2 row + column) + t of what is read
    assert found[0].given.shape == (4, 64, 64, 3)
    assert np.array_equal(found[0].given[3, 32:, :32], small[2 * 4 + 3])
    bare = loaded(host, frames)
    bare.model.load_state_dict(of.model.state_dict())
    for maps, expected in zip(found, attention_maps(bare, found[0].given, "all"), strict=True):
        assert np.array_equal(maps.cells, expected.cells)
        assert (maps.grid, expected.grid) == (2, 1)
    assert found[0].meaning.endswith("; a frame is a grid of 2 x 2 of the clip's")


@pytest.mark.parametrize(("preset", "unit", "one"), [("timesformer-tiny", 2, {"layers": 1, "heads": 1}),
    ("vivit-tiny", 1, {"layers": 1, "heads": 1}), ("vit-tiny", 2, {"encoder_layers": 1, "encoder_heads": 1}),
    ("videomae-tiny", 1, {"layers": 1, "heads": 1})])  # fmt: skip
def test_a_patch_is_where_it_is_in_the_frame(frames, preset, unit, one):
    """With one layer and head, another patch has another weight, and those of all other patches only change by one factor.

    Where all tokens ask, the patch asks too, for other patches than before: their weights change a little more.
    """
    of, changed = loaded(preset, frames, **one), frames.copy()
    # a new class token is 0, and so asks for nothing
    for name, parameter in of.model.named_parameters():
        if name.endswith("cls_token"):
            nn.init.normal_(parameter)
    changed[2, 16:32, 48:64] = 255 - changed[2, 16:32, 48:64]
    before, after = (attention_maps(of, each)[0].cells[unit] for each in (frames, changed))
    ratios = np.log(after / before)
    odd = np.abs(ratios - np.median(ratios))
    assert np.unravel_index(odd.argmax(), odd.shape) == (1, 3)
    others = np.delete(odd.ravel(), 1 * 4 + 3).max()
    assert others < (1e-4 if KINDS[preset] is class_row else odd.max() / 3)
    assert odd.max() > (1e-2 if KINDS[preset] is class_row else 1e-3)


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
    over = AttentionMaps("m", "w", "", "", 1, cells, np.zeros((1, 32, 32, 3), np.uint8)).over()
    # 8 pixels a cell; bilinear between the centres of cells, the highest between the two pixels around its centre
    assert over.shape == (1, 32, 32)
    assert np.argwhere(over[0] == over.max()).tolist() == [[11, 19], [11, 20], [12, 19], [12, 20]]
    assert over[0, 4, 4] == 0


def test_a_method_without_such_a_map_names_those_that_have_one():
    having = "these have: .*moose-tiny.*time-videomae.*time-vit-tiny.*timesformer-b.*vivit-tiny"
    with pytest.raises(UsageError, match=rf"^--method moss-tiny: 'moss-tiny' has no attention map that is known here; {having}") as error:
        attention.check("moss-tiny")
    assert not {"moss", "resnet"} & set(str(error.value).partition("these have")[2].replace("-", " ").split())
    # two hosts of one file, of which one has attention
    with pytest.raises(UsageError, match=r"^--method time-resnet-tiny: 'time-resnet-tiny' has no attention; these have: ") as error:
        attention.check("time-resnet-tiny")
    assert "\n" not in str(error.value)
    attention.check("time-vit")
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
    return attention_figure.Picture(shown.name, (*attention_maps(of, shown.frames), *attention_maps(own, shown.frames)))


def rows(made) -> list[list]:
    shown = [axes for axes in made.axes if axes.get_position().width > 0.03]
    heights = sorted({round(axes.get_position().y0, 6) for axes in shown}, reverse=True)
    return [[axes for axes in shown if round(axes.get_position().y0, 6) == height] for height in heights]


def test_a_row_of_frames_then_one_of_each_map(picture):
    made = rows(attention_figure.figure(picture))
    assert [len(row) for row in made] == [4, 4, 4, 4]
    assert [np.array_equal(axes.get_images()[0].get_array(), frame) for axes, frame in zip(made[0], picture.maps[0].given)] == [True] * 4
    for row, maps in zip(made[1:], picture.maps):
        heat = maps.over()
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


def annotated(made) -> list:
    """The texts on the left of rows, from above."""
    texts = [text for axes in made.axes for text in axes.texts if isinstance(text, Annotation) and text.get_text()]
    return sorted(texts, key=lambda text: -text.axes.get_position().y0)


def test_layers_are_rows_and_other_frames_stand_above_their_own():
    shown = clips.read("toy", frames=4, resolution=64)
    maps = attention_maps(loaded("vit-tiny", shown.frames), shown.frames, "all")
    of, small = loaded("time-vit-tiny", shown.frames), clips.read("toy", frames=16, resolution=32).frames
    behind = attention_maps(of, small, (1, 4))
    made = attention_figure.figure(attention_figure.Picture(shown.name, (*maps, *behind)))
    drawn = rows(made)
    assert [len(row) for row in drawn] == [4] * (1 + 4 + 1 + 2)
    expected = [shown.frames, *(each.over() for each in maps), behind[0].given, *(each.over() for each in behind)]
    for row, pictures in zip(drawn, expected):
        assert all(np.array_equal(axes.get_images()[-1].get_array(), picture) for axes, picture in zip(row, pictures))
    # numbers of the frames stand once, above all
    assert [row[1].get_title() for row in drawn] == ["frame 1", *[""] * 7]
    said = [text.get_text().split("\n") for text in annotated(made)]
    assert [lines[0] for lines in said if lines[0].startswith("layer")] == [f"layer {n} of 4" for n in (1, 2, 3, 4, 1, 4)]
    assert said.count(["vit-tiny"]) == 4
    assert said.count(["time-vit-tiny"]) == 2
    assert ["grids of 2 x 2"] in said
    caption = made.texts[1].get_text()
    assert caption.count("random weights") == 2
    assert "vit-tiny (random weights): class token to the patches of each frame, all 4 layers." in caption


@pytest.mark.parametrize("frames", [2, 32, 64])
def test_no_text_lies_over_another(frames):
    generator = np.random.default_rng(0)
    given = generator.integers(0, 256, (frames, 16, 16, 3), dtype=np.uint8)
    maps = [
        AttentionMaps("time-videomae-tiny", "random weights", "", "meaning", 1, generator.random((frames, 2, 2)), given, f"layer {n} of 12")
        for n in (11, 12)
    ]
    made = attention_figure.figure(attention_figure.Picture("toy", tuple(maps)))
    renderer = FigureCanvasAgg(made).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in [*annotated(made), *made.texts]]
    assert min(box.x0 for box in boxes) >= 0
    assert min(box.y0 for box in boxes) >= 0
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.overlaps(b)]


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


def test_layers_of_a_host_with_and_without_the_time_layer(command, tmp_path):
    both = ["--method", "videomae-tiny", "--method", "time-videomae-tiny", *SMALL]
    assert command("toy", *both, "--layers", "all", "-o", "all.png") == (0, "all.png\n", "")
    assert command("toy", *both, "-o", "last.png") == (0, "last.png\n", "")
    every, last = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("all", "last"))
    assert every.shape[0] > 2 * last.shape[0]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--method", "vit-tiny", "--layers", "1,5"], "--layers 5: 'vit-tiny' has 4 layers of attention; name layers from 1 to 4"),
        (["--method", "vit-tiny", "--layers", "first"], "--layers first: expected last, all, or numbers"),
        (["--method", "time-resnet-tiny", "--layers", "all"], "--method time-resnet-tiny: 'time-resnet-tiny' has no attention; these"),
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
