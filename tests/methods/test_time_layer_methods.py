"""The TIME layer's hosts: the same as without it where N is 1, the same cost where it is not; depth; bad shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchctl import lookup
from benchctl.errors import ShapeError, UsageError
from benchctl.methods import time_layer
from benchctl.probes import flops
from benchctl.probes.hollow import empty_build
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]
HOSTS = {"time-resnet-tiny": "resnet50-tiny", "time-vit-tiny": "vit-tiny", "time-videomae-tiny": "videomae-tiny"}
LARGE = {"time-resnet50": "resnet50", "time-vit": "vit-b", "time-videomae": "videomae-b"}


@pytest.mark.parametrize("preset", HOSTS)
def test_one_cell_is_the_host(build: Build, preset: str):
    with_layer, host = build(preset, "4x64", grid=1).eval(), build(HOSTS[preset], "4x64").eval()
    with_layer.load_state_dict(host.state_dict())
    clip = torch.randn(2, 4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(with_layer(clip), host(clip))


def test_time_videomae_starts_from_the_published_sizes():
    assert time_layer.PRESETS["time-videomae"]["weights"] == lookup.entry("method", "videomae-b").value["weights"]
    statistics = time_layer.Config(host="vit").statistics()
    assert statistics == (lookup.load("method", "vit-b").MEAN, lookup.load("method", "vit-b").STD)


@pytest.mark.parametrize("preset", LARGE)
@pytest.mark.parametrize("grid", [2, 7])
def test_the_layer_costs_nothing(build: Build, preset: str, grid: int):
    config = time_layer.Config(**{**time_layer.PRESETS[preset], "grid": grid})
    (small,) = config.input_shapes(ClipShape(frames=2, resolution=224))
    assert small == (2 * grid**2, 3, 224 // grid, 224 // grid)
    counted = flops.count(empty_build(lambda: build(preset, "2x224", grid=grid)), torch.empty(1, *small))
    host = flops.count(empty_build(lambda: build(LARGE[preset], "2x224")), torch.empty(1, 2, 3, 224, 224))
    assert counted.macs == host.macs > 0


def test_published_sizes():
    """ResNet-50 has 25.56 M parameters, ViT-B/16 86.57 M, with ImageNet's 1000 classes."""
    for preset, expected in (("resnet50", 25_557_032), ("vit-b", 86_567_656)):
        module = lookup.load("method", preset)
        config = module.Config(**module.PRESETS[preset])
        with torch.device("meta"):
            model = module.build(ModelSpec(config, ClipShape(frames=1, resolution=224), 1000, config.attention("auto")))
        assert sum(p.numel() for p in model.parameters()) == expected


def test_resnet50_is_timms(build: Build):
    import timm

    ours = build("resnet50", "1x64", classes=1000)
    theirs = timm.create_model("resnet50", pretrained=False)
    theirs.load_state_dict(ours.image.state_dict())
    clip = torch.randn(1, 1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(clip), theirs.eval()(clip[:, 0]))


@pytest.mark.parametrize("preset", ["resnet50-tiny", "vit-tiny"])
def test_frames_are_averaged_in_any_order(build: Build, preset: str):
    model, clip = build(preset, "4x64").eval(), torch.randn(1, 4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), model(clip.flip(1)))
        alone = torch.stack([build(preset, "1x64").eval()(clip[:, t : t + 1]) for t in range(4)]).mean(0)
        torch.testing.assert_close(model(clip), alone)


@pytest.mark.parametrize("preset", HOSTS)
def test_the_order_of_frames_matters_in_a_grid(build: Build, preset: str):
    model, clip = build(preset, "2x64", grid=2).eval(), torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(1)), atol=1e-5)


@pytest.mark.parametrize("preset", HOSTS)
def test_depth_is_summed_kernels(build: Build, preset: str):
    """One channel shown three times to an RGB stem is that stem with its kernels summed over their inputs."""
    depth, rgb = (build(preset, "2x64", grid=2, modality=modality).eval() for modality in ("depth", "rgb"))
    assert all(torch.equal(a, b) for a, b in zip(depth.state_dict().values(), rgb.state_dict().values()))
    clip = torch.randn(1, 8, 1, 32, 32)
    stem = next(m for m in depth.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    seen: list[torch.Tensor] = []
    stem.register_forward_hook(lambda module, given, out: seen.extend([given[0], out]))
    with torch.no_grad():
        torch.testing.assert_close(depth(clip), rgb(clip.expand(-1, -1, 3, -1, -1)))
        convolve = nn.functional.conv3d if isinstance(stem, nn.Conv3d) else nn.functional.conv2d
        summed = convolve(seen[0][:, :1], stem.weight.sum(1, keepdim=True), stem.bias, stem.stride, stem.padding)
    torch.testing.assert_close(seen[1], summed, rtol=1e-4, atol=1e-5)


def test_padding_comes_after_the_grid(build: Build):
    padding, whole = build("time-vit-tiny", "2x60", grid=2).eval(), build("time-vit-tiny", "2x64", grid=1).eval()
    small = torch.randn(1, 8, 3, 30, 30)
    arranged = nn.functional.pad(time_layer.TimeLayer(2, "spatial")(small), (0, 4, 0, 4))
    with torch.no_grad():
        assert torch.equal(padding(small), whole(arranged))


def test_wrong_turns():
    config = time_layer.Config(host="vit", grid=14)
    with pytest.raises(ShapeError, match="resolution 64 cannot be cut into 14 x 14 cells; use 56 or 70"):
        config.check(ClipShape(frames=2, resolution=64), pad=True)
    with pytest.raises(UsageError, match="'resnet50' has no pre-training by reconstruction; use the host videomae"):
        time_layer.build_pretraining(ModelSpec(time_layer.Config(host="resnet50"), ClipShape(frames=2, resolution=64), 2, "none"))
    with pytest.raises(ValueError, match="grid"):
        time_layer.Config(host="vit", grid=3)
    assert not time_layer.Config(host="vit").pretrains()
