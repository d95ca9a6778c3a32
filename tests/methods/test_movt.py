"""MovT, PixT and their fusion with VideoMAE: published costs, what they can and cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchctl import lookup
from benchctl.errors import ShapeError
from benchctl.layers.movt import MovT
from benchctl.layers.point_transformer import velocities
from benchctl.methods.pixt import spread
from benchctl.probes import flops
from benchctl.probes.hollow import empty_build
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]
JESTER = 27


def counted(preset: str, frames: int, **options: Any) -> tuple[flops.OperationCount, int]:
    module = lookup.load("method", preset)
    config = module.Config(**{**module.PRESETS[preset], **options})
    shape = ClipShape(frames=frames, resolution=224)
    model = empty_build(lambda: module.build(ModelSpec(config, shape, JESTER, config.attention("auto"))))
    found = flops.count(model, tuple(torch.empty(1, *each) for each in config.input_shapes(shape)))
    return found, flops.parameters(model).total


@pytest.mark.parametrize(("frames", "printed"), [(4, 0.30), (16, 0.39), (32, 0.52)])
def test_movt_costs_what_is_printed(frames: int, printed: float):
    found, parameters = counted("movt", frames)
    assert found.macs / 1e9 == pytest.approx(printed, rel=0.02)
    assert parameters / 1e6 == pytest.approx(4.56, rel=0.002)


def test_pixt_costs_what_is_printed():
    found, parameters = counted("pixt", 32)
    assert found.macs / 1e9 == pytest.approx(0.51, rel=0.01)
    assert parameters / 1e6 == pytest.approx(4.41, rel=0.006)


@pytest.mark.parametrize(("frames", "tubelet", "printed"), [(1, 1, 3.19), (2, 2, 3.24), (4, 2, 6.49), (16, 2, 25.95)])
def test_videomae_small_costs_what_is_printed_without_attention(frames: int, tubelet: int, printed: float):
    found, _ = counted("videomae-s", frames, tubelet_size=tubelet)
    assert found.macs_without_attention / 1e9 == pytest.approx(printed, rel=0.005)
    assert found.macs > found.macs_without_attention


def test_late_fusion_costs_what_both_cost():
    both, parameters = counted("movt-videomae-s", 2)
    alone = [counted("movt", 32), counted("videomae-s", 2)]
    assert both.macs == pytest.approx(sum(found.macs for found, _ in alone), abs=200), "but for the mean of the logits"
    assert parameters == sum(count for _, count in alone)


def test_velocities_worked_example():
    """One point that stays, then moves by (0.5, -0.25) in one of four frames, then is hidden."""
    track = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.5, -0.25, 1.0], [0.5, -0.25, 0.0]])[None, :, None]
    expected = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [2.0, -1.0, 1.0], [0.0, 0.0, 0.0]])[None, :, None]
    assert torch.equal(velocities(track), expected)


def test_the_order_of_points_means_nothing(build: Build):
    model, tracks = build("movt-tiny", "8x64").eval(), torch.randn(2, 8, 32, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(tracks), model(tracks[:, :, torch.randperm(32)]), atol=1e-5, rtol=1e-4)


def test_the_order_of_pixels_means_something(build: Build):
    model, clip = build("pixt-tiny", "8x64").eval(), torch.randn(2, 8, 3, 6, 6)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(-1)), atol=1e-4)


def test_where_points_are_is_seen_through_their_mean_position_alone(build: Build):
    model = build("movt-tiny", "8x64").eval()
    assert isinstance(model, MovT)
    tracks = torch.randn(1, 8, 32, 3)
    shifted = tracks + torch.tensor([0.3, -0.2, 0.0])
    with torch.no_grad():
        torch.testing.assert_close(model.tokens.motion(velocities(tracks)), model.tokens.motion(velocities(shifted)), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(model(tracks), model(shifted), atol=1e-4)
        # the mean position of a track and of its reverse is the same: only motion tells them apart
        assert not torch.allclose(model(tracks), model(tracks.flip(1)), atol=1e-4)


@pytest.mark.parametrize(("there", "wanted"), [(64, 60), (36, 32), (16, 16), (4, 1)])
def test_pixels_are_spread(there: int, wanted: int):
    taken = spread(there, wanted).tolist()
    assert len(set(taken)) == wanted
    assert taken == sorted(taken)
    assert taken[0] >= 0
    assert taken[-1] < there
    assert max(b - a for a, b in zip([-1, *taken], [*taken, there])) <= there / wanted + 1.5


@pytest.mark.parametrize(("points", "side"), [(1, 1), (4, 2), (5, 3), (32, 6), (60, 8), (64, 8), (65, 9)])
def test_pixels_come_from_the_smallest_frame_that_has_them(points: int, side: int):
    config = lookup.load("method", "pixt").Config(points=points)
    assert config.input_shapes(ClipShape(frames=4, resolution=224)) == ((4, 3, side, side),)


def test_late_fusion_is_the_mean_of_the_logits(build: Build):
    model = build("movt-videomae-tiny", "2x64").eval()
    clip, tracks = torch.randn(2, 2, 3, 64, 64), torch.randn(2, 32, 32, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(clip, tracks), (model.video(clip) + model.points(tracks)) / 2)


@pytest.mark.parametrize("fusion", ["cross", "cross-frozen"])
def test_cross_attention_starts_from_a_late_fusion(build: Build, fusion: str):
    late, cross = build("movt-videomae-tiny", "2x64", seed=1), build("movt-videomae-tiny", "2x64", fusion=fusion)
    found = cross.load_state_dict(late.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith(cross.added_to_start) for name in found.missing_keys)
    assert found.missing_keys


def test_frozen_branches_do_not_learn(build: Build):
    model = build("movt-videomae-tiny", "2x64", fusion="cross-frozen")
    learns = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"cross", "video", "points"}
    heads = {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("cross")}
    assert all(name.startswith(("video.video.classifier", "video.video.fc_norm", "points.head")) for name in heads)
    model(torch.randn(1, 2, 3, 64, 64), torch.randn(1, 32, 32, 3)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_wrong_turns(build: Build):
    with pytest.raises(ShapeError, match="a track batch of shape 2x8x31x3 was given to a model built for Bx8x32x3"):
        build("movt-tiny", "8x64")(torch.zeros(2, 8, 31, 3))
    config = lookup.load("method", "movt-videomae-s").Config
    with pytest.raises(ValueError, match="track_frames"):
        config(track_frames=1)
    with pytest.raises(ValueError, match="point_width 10 is not a multiple of 8 heads"):
        config(point_width=10)
