from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from benchctl import lookup
from benchctl.engine import work
from benchctl.errors import ShapeError
from benchctl.methods.slowfast import convert
from benchctl.plan import expand
from benchctl.suite_file import parse

Build = Callable[..., nn.Module]


def test_counts_with_two_slow_and_eight_fast_frames() -> None:
    text = "name: t\ntask: profile\nmethods: [slowfast-r50]\nsweep: [{frames: 8, resolution: 256}]\nmeasure: [flops, params]"
    result = work.predict(expand(parse(text, Path("t.yaml"))).cells[0])
    assert result.value("params") / 1e6 == pytest.approx(34.57, rel=2e-4)
    assert result.value("macs", kind="all") / 1e9 == pytest.approx(16.52, rel=5e-4)


@pytest.mark.parametrize(("frames", "near"), [(6, "use 4 or 8 frames"), (3, "use 4 frames"), (9, "use 8 or 12 frames")])
def test_fast_frames_are_a_multiple_of_alpha(build: Build, frames: int, near: str) -> None:
    with pytest.raises(ShapeError, match=near):
        build("slowfast-tiny", f"{frames}x64")


def test_channels_must_be_whole_shares() -> None:
    with pytest.raises(ValueError, match="20 channels are not a multiple of beta = 8"):
        lookup.load("method", "slowfast-tiny").Config(channels=(16, 20, 64, 128))


def test_the_slow_pathway_sees_every_fourth_frame(build: Build) -> None:
    """Frames between reach the logits through the fast pathway alone: with its way cut, they change nothing."""
    model = build("slowfast-tiny", "8x64").eval()
    model.classifier.weight.data[:, model.slow.outputs :] = 0
    for lateral in model.lateral:
        nn.init.zeros_(lateral.norm.weight)
    clip = torch.randn(1, 8, 3, 64, 64)
    between, seen = clip.clone(), clip.clone()
    between[:, [1, 2, 3, 5, 6, 7]] += 1
    seen[:, 4] += 1
    with torch.no_grad():
        assert torch.equal(model(clip), model(between))
        assert not torch.allclose(model(clip), model(seen))


def test_every_frame_counts(build: Build) -> None:
    model = build("slowfast-tiny", "8x64").eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        logits = model(clip)
        for frame in range(8):
            changed = clip.clone()
            changed[:, frame] += 1
            assert not torch.equal(model(changed), logits), f"frame {frame} changes nothing"


def zoo_name(name: str) -> str:
    """Of one of our tensors: its name in PyTorchVideo's file."""
    for ours, theirs in (
        ("shortcut.conv", "branch1_conv"),
        ("shortcut.norm", "branch1_norm"),
        ("reduce.conv", "branch2.conv_a"),
        ("reduce.norm", "branch2.norm_a"),
        ("spatial.conv", "branch2.conv_b"),
        ("spatial.norm", "branch2.norm_b"),
        ("expand.conv", "branch2.conv_c"),
        ("expand.norm", "branch2.norm_c"),
        ("classifier", "blocks.6.proj"),
    ):
        name = name.replace(ours, theirs)
    name = re.sub(r"^lateral\.(\d)\.conv", r"blocks.\1.multipathway_fusion.conv_fast_to_slow", name)
    name = re.sub(r"^lateral\.(\d)\.norm", r"blocks.\1.multipathway_fusion.norm", name)
    for index, pathway in enumerate(("slow", "fast")):
        name = name.replace(f"{pathway}.stem.first.", f"blocks.0.multipathway_blocks.{index}.")
        for stage in range(4):
            name = name.replace(f"{pathway}.stages.{stage}.", f"blocks.{stage + 1}.multipathway_blocks.{index}.res_blocks.")
    return name


def test_files_of_the_zoo_load(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "zoo").mkdir()
    published = build("slowfast-tiny", "8x64", seed=1)
    state = {zoo_name(name): tensor for name, tensor in published.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "zoo" / "SLOWFAST.pyth")
    ours = build("slowfast-tiny", "4x32", pretrained=True, weights="zoo:SLOWFAST.pyth")
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert ours.weights == "zoo:SLOWFAST.pyth"


def test_names_of_the_published_file() -> None:
    """Some as they stand in SLOWFAST_8x8_R50.pyth, with where they go."""
    names = {
        "blocks.0.multipathway_blocks.1.conv.weight": "fast.stem.first.conv.weight",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": "lateral.0.conv.weight",
        "blocks.3.multipathway_fusion.norm.running_var": "lateral.3.norm.running_var",
        "blocks.1.multipathway_blocks.0.res_blocks.0.branch1_conv.weight": "slow.stages.0.0.shortcut.conv.weight",
        "blocks.4.multipathway_blocks.1.res_blocks.2.branch2.norm_c.bias": "fast.stages.3.2.expand.norm.bias",
        "blocks.6.proj.weight": "classifier.weight",
    }
    assert list(convert({name: torch.zeros(1) for name in names})) == list(names.values())
    with pytest.raises(ValueError, match="unexpected tensor"):
        convert({"blocks.5.multipathway_blocks.0.conv.weight": torch.zeros(1)})
