"""UniFormer as its authors have it: names and shapes of their checkpoints, and their costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchctl.errors import WeightsMissing
from benchctl.probes.flops import count, parameters
from benchctl.probes.hollow import empty_build

Build = Callable[..., nn.Module]

FILE = "hub/uniformer_video:small.pth"


def published_layout(depths: list[int], widths: list[int], stem: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the authors' checkpoints, written down from them and not from our modules."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def add_batch_norm(name: str, width: int) -> None:
        add(name, width)
        shapes.update({f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()})

    before = 3
    for stage, (depth, C) in enumerate(zip(depths, widths), start=1):
        add(f"patch_embed{stage}.norm", C)
        add(f"patch_embed{stage}.proj", C, before, *((3, stem, stem) if stage == 1 else (1, 2, 2)))
        for i in range(depth):
            block = f"blocks{stage}.{i}"
            add(f"{block}.pos_embed", C, 1, 3, 3, 3)
            if stage < 3:
                add_batch_norm(f"{block}.norm1", C)
                add(f"{block}.conv1", C, C, 1, 1, 1)
                add(f"{block}.conv2", C, C, 1, 1, 1)
                add(f"{block}.attn", C, 1, 5, 5, 5)
                add_batch_norm(f"{block}.norm2", C)
            else:
                add(f"{block}.norm1", C)
                add(f"{block}.attn.qkv", 3 * C, C)
                add(f"{block}.attn.proj", C, C)
                add(f"{block}.norm2", C)
            points = (1, 1, 1) if stage < 3 else ()
            add(f"{block}.mlp.fc1", 4 * C, C, *points)
            add(f"{block}.mlp.fc2", C, 4 * C, *points)
        before = C
    add_batch_norm("norm", before)
    add("head", classes, before)
    return shapes


TINY = published_layout([1, 1, 2, 1], [16, 32, 64, 96], 2, classes=5)


def drawn_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7) if name.endswith("tracked") else torch.rand(shape, generator=generator) + 0.1 for name, shape in TINY.items()
    }


@pytest.fixture(params=["model", None], ids=["wrapped", "bare"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What is in FILE, which a repository of several files holds."""
    state = drawn_state()
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    folder = tmp_path / "hub" / "uniformer_video"
    folder.mkdir(parents=True)
    torch.save({request.param: state} if request.param else state, folder / "small.pth")
    return state


@pytest.mark.parametrize(("preset", "depths", "millions"), [("uniformer-s", [3, 4, 8, 3], 21.4), ("uniformer-b", [5, 8, 20, 7], 49.8)])
def test_names_and_shapes_are_the_published_ones(build: Build, preset: str, depths: list[int], millions: float) -> None:
    with torch.device("meta"):
        model = build(preset, "16x224", classes=400)
    ours = {name: tuple(tensor.shape) for name, tensor in model.video.state_dict().items()}
    assert ours == published_layout(depths, [64, 128, 320, 512], 4, classes=400)
    assert parameters(model).total / 1e6 == pytest.approx(millions, abs=0.05)


def test_published_weights_load(build: Build, checkpoint: dict[str, Tensor]) -> None:
    model = build("uniformer-tiny", "4x64", classes=5, pretrained=True, weights=FILE)
    assert model.weights == FILE
    loaded = model.video.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in checkpoint.items())


def test_a_head_for_other_classes_stays_random(build: Build, checkpoint: dict[str, Tensor]) -> None:
    model = build("uniformer-tiny", "4x64", classes=7, pretrained=True, weights=FILE)
    assert model.weights == f"{FILE}, head random (7 classes, published 5)"
    assert torch.equal(model.video.norm.weight, checkpoint["norm.weight"])


def test_a_file_that_is_not_there_is_named(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing) as error:
        build("uniformer-tiny", "4x64", pretrained=True, weights="hub/uniformer_video:other.pth")
    assert f"put other.pth in {tmp_path / 'hub' / 'uniformer_video'}, or use 'pretrained: false'" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_size_is_refused(build: Build, checkpoint: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsMissing, match=r"small.pth: does not fit this model: patch_embed1.proj.weight is \(16, 3, 3, 2, 2\)"):
        build("uniformer-tiny", "4x64", pretrained=True, weights=FILE, stem_stride=4, patch_size=32)


@pytest.mark.parametrize(
    ("preset", "frames", "options", "gmacs"),
    [
        ("uniformer-s", 16, {}, 41.8),
        ("uniformer-s", 16, {"temporal_downsampling": False}, 109.63),
        ("uniformer-b", 32, {}, 259),
    ],
)
def test_costs_are_the_published_ones(build: Build, preset: str, frames: int, options: dict[str, Any], gmacs: float) -> None:
    model = empty_build(lambda: build(preset, f"{frames}x224", classes=174, **options))
    assert count(model, torch.empty(1, frames, 3, 224, 224)).macs / 1e9 == pytest.approx(gmacs, rel=0.005)
