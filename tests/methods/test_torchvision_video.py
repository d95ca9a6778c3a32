"""R(2+1)D, MViT and Video Swin: they are torchvision's, count what torchvision says, and load what it publishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import video

from benchctl import lookup
from benchctl.errors import ShapeError, UsageError, WeightsMissing
from benchctl.layers import torchvision_weights
from benchctl.methods.mvit import resize_table

Build = Callable[..., nn.Module]

#: preset -> torchvision's builder, and the clip that its `_ops` are for
PUBLISHED: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "r2plus1d-18": (video.r2plus1d_18, "16x112"),
    "mvit-v2-s": (video.mvit_v2_s, "16x224"),
    "swin3d-t": (video.swin3d_t, "16x224"),
}
TINY = ("r2plus1d-tiny", "mvit-tiny", "swin3d-tiny")


def entry(preset: str) -> Any:
    return torchvision_weights.listed(lookup.entry("method", preset).value["weights"])


@pytest.mark.parametrize("preset", PUBLISHED)
def test_counts_and_statistics_are_those_that_torchvision_documents(build: Build, preset: str) -> None:
    shape, meta = PUBLISHED[preset][1], entry(preset).meta
    frames, side = (int(n) for n in shape.split("x"))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(preset, shape, classes=400)
        model(torch.empty(1, frames, 3, side, side))
    assert sum(p.numel() for p in model.parameters()) == meta["num_params"]
    assert counter.get_total_flops() / 2e9 == pytest.approx(meta["_ops"], abs=1e-3)
    module, transforms = lookup.load("method", preset), entry(preset).transforms()
    assert (list(module.MEAN), list(module.STD)) == (list(transforms.mean), list(transforms.std))


@pytest.mark.parametrize("preset", PUBLISHED)
def test_tensors_are_those_of_torchvisions_model(build: Build, preset: str) -> None:
    builder, shape = PUBLISHED[preset]
    with torch.device("meta"):
        ours, theirs = build(preset, shape, classes=400).video.state_dict(), builder().state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in theirs.items()}


def test_r2plus1d_answers_as_torchvisions_does(build: Build) -> None:
    """The one that is put together here."""
    ours, theirs = build("r2plus1d-18", "4x32", classes=400).eval(), video.r2plus1d_18().eval()
    theirs.load_state_dict(ours.video.state_dict())
    clip = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip.transpose(1, 2)), rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["mvit-tiny", "swin3d-tiny"])
def test_frames_are_whole_tubelets(build: Build, preset: str) -> None:
    with pytest.raises(ShapeError, match="use 4 or 6 frames"):
        build(preset, "5x64")


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("shape", ["2x32", "4x96", "16x64"])
def test_other_shapes(build: Build, preset: str, shape: str) -> None:
    frames, side = (int(n) for n in shape.split("x"))
    assert build(preset, shape)(torch.randn(2, frames, 3, side, side)).isfinite().all()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, torch.Tensor]], None]:
    """Puts tensors where the file of a preset's weights is looked for; there is no server."""

    def no_server(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    monkeypatch.setattr(torchvision_weights.urllib.request, "urlopen", no_server)
    (tmp_path / "torchvision").mkdir()

    def put(name: str, state: dict[str, torch.Tensor]) -> None:
        torch.save(state, tmp_path / "torchvision" / torchvision_weights.listed(name).url.rpartition("/")[2])

    return put


@pytest.mark.parametrize(("preset", "large"), zip(TINY, PUBLISHED))
def test_published_weights_load(build: Build, publish: Callable[..., None], preset: str, large: str) -> None:
    name = lookup.entry("method", large).value["weights"]
    published = build(preset, "8x64", seed=1)
    publish(name, published.video.state_dict())
    ours = build(preset, "8x64", pretrained=True, weights=name)
    assert all(torch.equal(tensor, published.state_dict()[key]) for key, tensor in ours.state_dict().items())
    assert ours.weights == f"torchvision {name}"
    other = build(preset, "8x64", classes=9, pretrained=True, weights=name)
    head = "fc" if preset == "r2plus1d-tiny" else "head"
    assert other.weights == f"torchvision {name}, {head} random (9 classes, published 4)"
    publish(name, {"other": torch.zeros(1)})
    with pytest.raises(WeightsMissing, match="does not fit this model"):
        build(preset, "8x64", pretrained=True, weights=name)


def test_weights_that_cannot_be_had(build: Build, publish: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no network\); put mvit_v2_s-ae3be167\.pth in") as missing:
        build("mvit-tiny", "8x64", pretrained=True, weights="MViT_V2_S_Weights.KINETICS400_V1")
    assert str(tmp_path / "torchvision") in str(missing.value)
    for name in ("MViT_V2_S_Weights.KINETICS401", "MViT_V9_Weights.KINETICS400_V1", "r2plus1d", "swin3d_t.KINETICS400_V1"):
        with pytest.raises(UsageError, match="torchvision has no weights"):
            build("mvit-tiny", "8x64", pretrained=True, weights=name)


def test_mvit_at_another_shape_answers_as_torchvision_with_the_published_tables(build: Build, publish: Callable[..., None]) -> None:
    """torchvision's attention resizes a table of another length itself: resizing it beforehand must not make a difference."""
    name = "MViT_V2_S_Weights.KINETICS400_V1"
    published = build("mvit-tiny", "8x64", seed=1)
    publish(name, published.video.state_dict())
    ours = build("mvit-tiny", "4x96", pretrained=True, weights=name).eval()
    theirs = build("mvit-tiny", "4x96", seed=2).eval()
    tables = {key: tensor for key, tensor in published.video.state_dict().items() if ".rel_pos_" in key}
    theirs.video.load_state_dict(published.video.state_dict() | {key: theirs.video.state_dict()[key] for key in tables})
    for key, table in tables.items():
        block, _, place = key.rpartition(".")
        setattr(theirs.video.get_submodule(block), place, nn.Parameter(table))
    clip = torch.randn(1, 4, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip))


def test_a_resized_table_is_linear_between_its_entries() -> None:
    table = torch.arange(4.0)[:, None] * torch.tensor([1.0, -2.0])
    assert resize_table(table, 4) is table
    torch.testing.assert_close(resize_table(table, 2), table.unflatten(0, (2, 2)).mean(1))
