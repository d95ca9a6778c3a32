"""Feature maps against what the convolutions give, and their figure."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from benchctl.errors import UsageError
from benchctl.spec import MethodConfig
from benchctl.visualize import clip as clips
from benchctl.visualize import features_figure
from benchctl.visualize.features import FeatureMap, clip_shape, features, given
from benchctl.visualize.model import LoadedModel, load_model
from benchctl.vocabulary import ClipShape


def loaded(preset: str, frames: int = 4, resolution: int = 64, **changes: object) -> LoadedModel:
    return load_model(preset, frames=frames, resolution=resolution, changes=changes)


def frames_of(model: LoadedModel) -> np.ndarray:
    shape = clip_shape(model)
    return np.random.default_rng(0).integers(0, 256, (shape.frames, shape.resolution, shape.resolution, 3), dtype=np.uint8)


def test_a_resnet_shows_the_first_convolution_of_each_resolution():
    model = loaded("resnet50-tiny", resolution=128)
    found = features(model, frames_of(model)).maps
    assert [(each.layer, each.cells.shape) for each in found] == [
        ("image.conv1", (4, 64, 64)),
        ("image.layer1.0.conv1", (4, 32, 32)),
        ("image.layer2.0.conv2", (4, 16, 16)),
        ("image.layer3.0.conv2", (4, 8, 8)),
        ("image.layer4.0.conv2", (4, 4, 4)),
    ]


@torch.no_grad()
def test_the_channel_is_the_one_that_differs_most():
    model = loaded("resnet50-tiny")
    frames = frames_of(model)
    first = features(model, frames).maps[0]
    maps = model.model.image.conv1(model.prepare(frames)[0]).numpy()
    spreads = [float(np.std(maps[:, channel].astype(np.float64))) for channel in range(maps.shape[1])]
    assert (first.channel, first.channels) == (int(np.argmax(spreads)), 64)
    assert first.cells == pytest.approx(maps[:, first.channel], abs=1e-5)


def test_named_layers_are_shown_in_the_order_in_which_they_are_named():
    """The six of the paper's figures, two of them of one resolution."""
    asked = [
        f"image.{name}" for name in ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1")
    ]
    model = loaded("resnet50-tiny")
    assert [each.layer for each in features(model, frames_of(model), asked).maps] == asked


@pytest.mark.parametrize("arrangement", ["spatial", "temporal"])
def test_behind_a_time_layer_the_network_is_given_grids(arrangement):
    model = loaded("time-resnet-tiny", grid=2, arrangement=arrangement)
    assert clip_shape(model) == ClipShape(frames=16, resolution=32)
    frames = frames_of(model)
    found = features(model, frames)
    assert found.given.shape == (4, 64, 64, 3)
    assert found.given.dtype == np.uint8
    for t in range(4):
        for cell in range(4):
            source = cell * 4 + t if arrangement == "spatial" else t * 4 + cell
            y, x = 32 * (cell // 2), 32 * (cell % 2)
            assert np.array_equal(found.given[t, y : y + 32, x : x + 32], frames[source])
    # the convolution sees what is shown
    host = loaded("resnet50-tiny")
    with torch.no_grad():
        expected = model.model.image.conv1(host.prepare(found.given)[0])[:, found.maps[0].channel]
    assert found.maps[0].cells == pytest.approx(expected.numpy(), abs=1e-5)


def test_depth_is_one_channel():
    model = loaded("time-resnet-tiny", grid=2, modality="depth")
    grey = frames_of(model)[..., :1].repeat(3, axis=-1)
    clip = model.prepare(grey)
    assert clip.shape == (1, 16, 1, 32, 32)
    mean, std = (float(np.mean(values)) for values in model.statistics)
    assert clip[0, 3, 0].numpy() == pytest.approx((grey[3, ..., 0] / 255 - mean) / std, abs=1e-5)
    assert model.colours(clip[0]).numpy()[:, 0] == pytest.approx(grey[..., 0] / 255, abs=1e-6)
    assert features(model, grey).maps[0].cells.shape == (4, 32, 32)


def test_tubelets_are_units():
    model = loaded("videomae-tiny")
    (only,) = features(model, frames_of(model)).maps
    assert only.cells.shape == (2, 4, 4)
    assert [only.unit(t, 4) for t in range(4)] == [0, 0, 1, 1]


def test_nothing_is_left_in_the_model():
    model = loaded("resnet50-tiny")
    features(model, frames_of(model))
    assert not any(part._forward_hooks for part in model.model.modules())


def test_frames_without_a_time_layer_are_given_as_they_are():
    model = loaded("resnet50-tiny")
    frames = frames_of(model)
    assert given(model, frames) is frames


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("image.layer1.0.conv9", "--layer image.layer1.0.conv9: 'resnet50-tiny' has no such convolution; such are image.layer1.0.conv"),
        ("image.layer1", "--layer image.layer1: gives no map of each frame; such are image"),
    ],
)
def test_another_layer_is_refused_by_name(layer, message):
    model = loaded("resnet50-tiny")
    with pytest.raises(UsageError) as refused:
        features(model, frames_of(model), [layer])
    assert str(refused.value).startswith(message)


class Flat(nn.Module):
    """No convolution at all, or one over something else than frames."""

    def __init__(self, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip.mean((1, 3, 4)) if self.convolution is None else self.convolution(clip.flatten(2)).mean((1, 2))


def test_a_method_without_maps_is_refused():
    shape = ClipShape(frames=2, resolution=32)
    statistics = ((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UsageError, match="--method flat: 'flat' has no convolution over frames; name another"):
        clip_shape(LoadedModel(Flat(), MethodConfig(), "flat", "no weights", statistics, read=shape))
    odd = LoadedModel(Flat(nn.Conv2d(1, 2, 1)), MethodConfig(), "flat", "no weights", statistics, read=shape)
    odd.model.forward = lambda clip: odd.model.convolution(clip.flatten(2)[:, None])
    with pytest.raises(UsageError, match="no convolution gives a map of each frame"):
        features(odd, np.zeros((2, 32, 32, 3), np.uint8))


def test_a_method_of_tracks_is_refused():
    tracks = LoadedModel(Flat(), MethodConfig(), "tracks", "no weights", ((0.0,) * 3, (1.0,) * 3), read=None)
    with pytest.raises(UsageError, match="--method tracks: 'tracks' reads point tracks"):
        clip_shape(tracks)


def test_the_figure_shows_what_is_given_and_every_map(tmp_path):
    models = [loaded("resnet50-tiny"), loaded("time-resnet-tiny", grid=2)]
    found = tuple(features(model, clips.read("toy", frames=shape.frames, resolution=shape.resolution).frames)
                  for model, shape in ((model, clip_shape(model)) for model in models))  # fmt: skip
    picture = features_figure.Picture("a$b.mp4", found)
    made = features_figure.figure(picture)
    shown = [axes for axes in made.axes if axes.get_images()]
    rows = [shown[start : start + 4] for start in range(0, len(shown), 4)]
    expected = [row for model in found for row in (model.given, *(each.cells for each in model.maps))]
    assert len(rows) == len(expected) == sum(1 + len(model.maps) for model in found)
    for row, pictures in zip(rows, expected):
        for axes, pixels in zip(row, pictures):
            assert np.array_equal(axes.get_images()[0].get_array(), pixels)
    maps = found[0].maps[0]
    assert {axes.get_images()[0].get_clim() for axes in rows[1]} == {(float(maps.cells.min()), float(maps.cells.max()))}
    said = " ".join(text.get_text().replace("\n", " ") for text in [*made.texts, *(text for axes in made.axes for text in axes.texts)])
    for part in ("a$b.mp4", "1: resnet50-tiny (random weights)", "2: time-resnet-tiny", "given to 2", f"channel {maps.channel} of 64"):
        assert part in said
    features_figure.save(picture, tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.05


def test_a_map_of_one_value_is_drawn():
    flat = FeatureMap("conv", 0, 1, np.zeros((2, 4, 4), np.float32))
    of = features_figure.Features("m", "w", np.zeros((2, 32, 32, 3), np.uint8), (flat,))
    assert features_figure.figure(features_figure.Picture("x", (of,))).axes
