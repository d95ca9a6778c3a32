"""Grad-CAM against its definition, the search for a feature grid on every tiny preset, and the figure."""

from __future__ import annotations

import itertools

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchctl import lookup
from benchctl.errors import UsageError
from benchctl.spec import MethodConfig
from benchctl.visualize import clip as clips
from benchctl.visualize import gradcam_figure
from benchctl.visualize.gradcam import GradCam, grad_cam, weighted
from benchctl.visualize.grids import FeatureGrid, candidates, locate
from benchctl.visualize.model import LoadedModel, load_model
from benchctl.vocabulary import ClipShape

T, R, PATCH = 8, 64, 16
TINY = [name for name in lookup.entries("method") if name.endswith("-tiny")]


def sees_the_clip(preset: str) -> bool:
    """Whether it is given the clip's own frames, and nothing else but flow."""
    config = lookup.load("method", preset).Config(**lookup.entry("method", preset).value)
    shape = ClipShape(frames=T, resolution=R)
    return config.pixels(shape) == shape and config.clip_tracks(shape) is None


#: frames x rows x columns, where it is not frames x rows x columns of patches: tubelets of 2, 2 frames for each that CLIP sees, pairs
GRIDS = {"dist": (4, None), "videomae": (4, None), "vivit": (4, None), "moose": (7, None), "uniformer": (4, None), "emim": (None, None)}


class OnePlace(nn.Module):
    """Means of pixels of one cell, kept where they are; the logit of class k is the mean of channel k at one place."""

    def __init__(self, place: tuple[int, int, int]) -> None:
        super().__init__()
        self.place = place
        self.cells = nn.Conv3d(3, 3, (1, PATCH, PATCH), stride=(1, PATCH, PATCH), bias=False)
        nn.init.zeros_(self.cells.weight)
        with torch.no_grad():
            for channel in range(3):
                self.cells.weight[channel, channel] = 1 / PATCH**2

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        grid = self.cells(clip_BTCHW.transpose(1, 2))
        return grid[(slice(None), slice(None), *self.place)]


def toy(model: nn.Module) -> LoadedModel:
    return LoadedModel(model.eval(), MethodConfig(), "toy", "no weights", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def test_a_class_that_is_read_at_one_place_is_mapped_by_its_channel():
    """The gradient is 1 at the place and 0 elsewhere, its mean 1 / positions: the map is the channel over the number of positions."""
    frames = np.zeros((T, R, R, 3), np.uint8)
    frames[5, 16:32, 48:64] = (0, 255, 0)
    found = grad_cam(toy(OnePlace((5, 1, 3))), frames, label=1)
    assert (found.layer, found.classes, found.predicted) == ("cells", 3, True)
    assert list(zip(*found.cells.nonzero())) == [(5, 1, 3)]
    assert found.cells[5, 1, 3] == pytest.approx(1 / found.cells.size)
    over = found.over(T, R)
    assert np.unravel_index(over.argmax(), over.shape)[0] == 5
    assert over[5, 24, 56] > 0.9 * over.max()
    # class 0 has no red anywhere: nothing raises it
    assert not grad_cam(toy(OnePlace((5, 1, 3))), frames, label=0).cells.any()


def test_weighted_is_the_definition():
    rng = np.random.default_rng(0)
    features, gradient = rng.normal(size=(2, 2, 3, 3, 4))
    expected = np.zeros((2, 3, 3))
    positions = list(itertools.product(range(2), range(3), range(3)))
    for place in positions:
        total = 0.0
        for c in range(4):
            total += sum(gradient[other][c] for other in positions) / len(positions) * features[place][c]
        expected[place] = max(total, 0.0)
    assert np.allclose(weighted(torch.from_numpy(features), torch.from_numpy(gradient)).numpy(), expected)


@pytest.mark.parametrize("preset", [name for name in TINY if not sees_the_clip(name)])
def test_methods_that_are_given_something_else_are_refused(preset: str):
    frames = clips.read("toy", frames=T, resolution=R).frames
    with pytest.raises(UsageError, match=r"reads point tracks, which this picture has not|and this picture shows the clip's own"):
        grad_cam(load_model(preset, frames=T, resolution=R), frames)


@pytest.mark.parametrize("preset", [name for name in TINY if sees_the_clip(name)])
def test_every_method_has_a_grid_of_its_patches(preset: str):
    frames = clips.read("toy", frames=T, resolution=R).frames
    loaded = load_model(preset, frames=T, resolution=R)
    found = [grad_cam(loaded, frames, label=label) for label in (0, 1)]
    # MViT's grid shrinks from block to block, beside a class token: the last one that is found by its size is the first block's
    side = 16 if preset == "mvit-tiny" else R // loaded.config.patch_size
    t = GRIDS.get(preset.partition("-")[0], (None, None))[0] or found[0].cells.shape[0]
    for each in found:
        assert each.cells.shape == (t, side, side), each.layer
        assert np.isfinite(each.cells).all()
        assert each.cells.min() >= 0
    # of two classes, one rises somewhere
    assert max(float(each.cells.max()) for each in found) > 0
    assert sum(each.probability for each in found) == pytest.approx(1, abs=1e-5)
    assert {each.predicted for each in found} == {True, False}


def arranged(layout: str, prefix: int = 0) -> Tensor:
    """A tensor that holds 10000 t + 100 h + w in every channel of position (t, h, w) of a 4 x 4 x 4 grid, and -1 elsewhere."""
    grid = torch.tensor([[[[10000.0 * t + 100 * h + w] * 3 for w in range(4)] for h in range(4)] for t in range(4)])
    tokens_tN3 = grid.reshape(4, 16, 3)
    none = -torch.ones(4, prefix, 3)
    return {
        "BCthw": grid.permute(3, 0, 1, 2)[None],
        "BthwC": grid[None],
        "BtChw": grid.permute(0, 3, 1, 2)[None],
        "tChw": grid.permute(0, 3, 1, 2),
        "thwC": grid,
        "BtNC": torch.cat([none, tokens_tN3], 1)[None],
        "tNC": torch.cat([none, tokens_tN3], 1),
        "NtC": tokens_tN3.transpose(0, 1),
        "B(tN)C": torch.cat([none[0], tokens_tN3.flatten(0, 1)])[None],
        "B(Nt)C": torch.cat([none[0], tokens_tN3.transpose(0, 1).flatten(0, 1)])[None],
        "B(t(P+N))C": torch.cat([none, tokens_tN3], 1).flatten(0, 1)[None],
    }[layout]


@pytest.mark.parametrize(("layout", "prefix"), [
    ("BCthw", 0), ("BthwC", 0), ("BtChw", 0), ("tChw", 0), ("thwC", 0), ("BtNC", 0), ("BtNC", 5), ("tNC", 0), ("tNC", 1), ("NtC", 0),
    ("B(tN)C", 0), ("B(tN)C", 1), ("B(Nt)C", 1), ("B(t(P+N))C", 1),
])  # fmt: skip
def test_each_layout_is_among_the_candidates_and_arranged(layout: str, prefix: int):
    x = arranged(layout, prefix)
    found = {grid.layout: grid for grid in candidates(x.shape, MethodConfig(), 4, 64)}
    assert found[layout].prefix == prefix
    assert torch.equal(found[layout].arrange(x), arranged("thwC"))


@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 96), (8, 1, 96), (1, 4, 96), (3, 16, 96), (1, 3, 17, 17), (1, 8, 4, 4, 5, 9, 9)])
def test_what_is_no_grid_has_no_candidate(shape: tuple[int, ...]):
    assert not candidates(shape, MethodConfig(), 8, 64)


@pytest.mark.parametrize("patch_major", [False, True])
def test_an_order_that_the_shape_does_not_tell_is_found_by_changing_the_clip(patch_major: bool):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.Conv3d(3, 8, (1, 16, 16), stride=(1, 16, 16))
            self.tokens = nn.Identity()

        def forward(self, clip_BTCHW: Tensor) -> Tensor:
            grid = self.cells(clip_BTCHW.transpose(1, 2)).movedim(1, -1)
            grid = grid.permute(0, 2, 3, 1, 4) if patch_major else grid
            return self.tokens(grid.flatten(1, 3)).mean(1)

    torch.manual_seed(0)
    both = [FeatureGrid("B(tN)C", 4, 4), FeatureGrid("B(Nt)C", 4, 4)]
    found = locate(Flat(), torch.randn(1, 4, 3, 64, 64), "tokens", both)
    assert found.layout == ("B(Nt)C" if patch_major else "B(tN)C")


def test_timesformers_own_order_is_found():
    loaded = load_model("timesformer-tiny", frames=4, resolution=64)
    clip = loaded.prepare(clips.read("toy", frames=4, resolution=64).frames)
    layer = "video.timesformer.encoder.layer.1"
    grids = [FeatureGrid("B(tN)C", 4, 4, 1), FeatureGrid("B(Nt)C", 4, 4, 1)]
    # the library lays its tokens out place by place, all frames of each
    assert locate(loaded.model, clip, layer, grids).layout == "B(Nt)C"


def test_pairs_of_frames_are_shown_on_their_first():
    cells = np.arange(3.0)[:, None, None] * np.ones((1, 2, 2))
    over = GradCam("x", 0, 2, 0.5, True, cells).over(4, 8)
    assert over.shape == (4, 8, 8)
    assert over[:, 0, 0].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 2}, "--class 2: there is no such class; use 0 to 1"),
        ({"layer": "video.side.nrm"}, "--layer video.side.nrm: 'moss-tiny' has no such module; such are video.side.norm"),
        ({"layer": "classifier"}, "--layer classifier: gives 1 x 2, which has no feature grid"),
        ({"layer": "video.encoder.vit.norm"}, "--layer video.encoder.vit.norm: no gradient reaches this module"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], message: str):
    loaded = load_model("moss-tiny", frames=4, resolution=64)
    with pytest.raises(UsageError) as refused:
        grad_cam(loaded, np.zeros((4, 64, 64, 3), np.uint8), **options)
    assert str(refused.value).startswith(message)


def test_a_model_without_a_grid_says_so():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, clip_BTCHW: Tensor) -> Tensor:
            return self.head(clip_BTCHW.mean((1, 3, 4)))

    with pytest.raises(UsageError, match="'toy' has no feature grid on which its classes depend; name a module with --layer"):
        grad_cam(toy(Mean()), np.zeros((2, 32, 32, 3), np.uint8))


def test_the_figure_has_frames_and_maps_over_them_and_says_what_they_are(tmp_path):
    clip = clips.read("toy", frames=4, resolution=64)
    loaded = load_model("moss-tiny", frames=4, resolution=64)
    picture = gradcam_figure.Picture(clip, loaded, grad_cam(loaded, clip.frames, label=0))
    made = gradcam_figure.figure(picture)
    shown = [axes.get_images() for axes in made.axes]
    assert [len(images) for images in shown] == [1] * 4 + [2] * 4 + [1]
    assert np.array_equal(np.stack([images[0].get_array() for images in shown[:4]]), clip.frames)
    maps = np.stack([images[1].get_array() for images in shown[4:8]])
    over = picture.cam.over(4, 64)
    assert np.allclose(maps * over.max(), over)
    said = " ".join(text.get_text().replace("\n", " ") for text in made.texts)
    for part in ("toy clip", "moss-tiny (random weights)", "Class 0 of 2", picture.cam.layer, "4 x 8 x 8"):
        assert part in said
    gradcam_figure.save(picture, tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.05


def test_an_empty_map_is_drawn_and_said():
    clip = clips.read("toy", frames=2, resolution=64)
    cam = GradCam("layer", 1, 2, 0.5, False, np.zeros((2, 4, 4)))
    made = gradcam_figure.figure(gradcam_figure.Picture(clip, toy(nn.Identity()), cam))
    assert "0 everywhere" in " ".join(text.get_text().replace("\n", " ") for text in made.texts)
