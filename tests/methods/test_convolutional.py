"""I3D and C2D: published sizes, time only where it is said to be, and weights in the zoo's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchctl.engine import work
from benchctl.errors import ShapeError, WeightsMissing
from benchctl.plan import expand
from benchctl.suite_file import parse

Build = Callable[..., nn.Module]

#: of our names in the tiny presets: those in PyTorchVideo's files
ZOO = (
    ("pathway.stem.first.", "blocks.0."),
    *((f"pathway.stages.{stage}.", f"blocks.{block}.res_blocks.") for stage, block in enumerate((1, 3, 4, 5))),
    (".shortcut.conv.", ".branch1_conv."),
    (".shortcut.norm.", ".branch1_norm."),
    (".reduce.conv.", ".branch2.conv_a."),
    (".reduce.norm.", ".branch2.norm_a."),
    (".spatial.conv.", ".branch2.conv_b."),
    (".spatial.norm.", ".branch2.norm_b."),
    (".expand.conv.", ".branch2.conv_c."),
    (".expand.norm.", ".branch2.norm_c."),
    ("classifier.", "blocks.6.proj."),
)


def zoo_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in ZOO:
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def counts(preset: str, frames: int, resolution: int) -> tuple[float, float]:
    """Parameters in M and multiply-accumulates in G, with 400 classes."""
    text = f"name: t\ntask: profile\nmethods: [{preset}]\nsweep: [{{frames: {frames}, resolution: {resolution}}}]\nmeasure: [flops, params]"
    result = work.predict(expand(parse(text, Path("t.yaml"))).cells[0])
    params, macs = result.value("params"), result.value("macs", kind="all")
    assert params is not None
    assert macs is not None
    return params / 1e6, macs / 1e9


@pytest.mark.parametrize(("preset", "params", "macs"), [("i3d-r50", 28.04, 28.54), ("c2d-r50", 24.33, 19.62)])
def test_counts(preset: str, params: float, macs: float) -> None:
    found = counts(preset, 8, 224)
    assert found[0] == pytest.approx(params, rel=2e-4)
    assert found[1] == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize("preset", ["i3d-tiny", "c2d-tiny"])
def test_only_i3d_sees_the_order_of_pairs(build: Build, preset: str) -> None:
    model = build(preset, "8x64").eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.ones_(part.weight)
    clip = torch.randn(1, 8, 3, 64, 64)
    other = clip.unflatten(1, (4, 2)).flip(1).flatten(1, 2)
    with torch.no_grad():
        same = torch.allclose(model(clip), model(other), atol=1e-4)
    assert same == (preset == "c2d-tiny")


@pytest.mark.parametrize("preset", ["i3d-tiny", "c2d-tiny"])
def test_frames_come_in_pairs(build: Build, preset: str) -> None:
    assert build(preset, "2x32")(torch.randn(2, 2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(ShapeError, match="use 6 or 8 frames"):
        build(preset, "7x64")


@pytest.mark.parametrize("preset", ["i3d-tiny", "c2d-tiny"])
def test_files_of_the_zoo_load(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "zoo").mkdir()
    published = build(preset, "8x64", seed=1)
    torch.save({"model_state": zoo_names(published.state_dict())}, tmp_path / "zoo" / "R50.pyth")
    ours = build(preset, "4x32", pretrained=True, weights="zoo:R50.pyth")
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert ours.weights == "zoo:R50.pyth"
    other = build(preset, "4x32", classes=7, pretrained=True, weights="zoo:R50.pyth")
    assert other.weights == "zoo:R50.pyth, classifier random (7 classes, published 4)"
    torch.save({"model_state": {"blocks.9.weight": torch.zeros(1)}}, tmp_path / "zoo" / "other.pyth")
    with pytest.raises(WeightsMissing, match=r"unexpected tensor blocks\.9\.weight"):
        build(preset, "4x32", pretrained=True, weights="zoo:other.pyth")


@pytest.mark.parametrize("preset", ["i3d-r50", "c2d-r50"])
def test_no_preset_names_weights(build: Build, preset: str) -> None:
    with torch.device("meta"), pytest.raises(WeightsMissing, match="no weights are published"):
        build(preset, "8x64", pretrained=True)
