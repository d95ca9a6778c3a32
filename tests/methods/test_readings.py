"""The counts that papers print, and those that measurement of the systems gave, each within half a percent.

MACs are counted by torch, which counts matrix products and convolutions, attention included. Papers count with fvcore, which adds
the normalisation layers; that is 0.2 % at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchctl.probes.flops import count, parameters
from benchctl.probes.hollow import empty_build

Build = Callable[..., nn.Module]

MOSS_S_BASELINE = {"side_width": 192, "side_layers": 6, "side_heads": 3}


@pytest.mark.parametrize(
    ("preset", "options", "shape", "classes", "gmacs", "trainable_millions"),
    [
        ("timesformer-b", {}, "8x224", 400, 196.05, 121.566),
        ("videomae-b", {}, "16x224", 400, 180.34, 86.53),
        ("side4video-b", {}, "8x224", 174, 175.97, 21.11),
        ("side4video-l", {}, "8x224", 174, 870, 102.1),
        ("side4video-b", MOSS_S_BASELINE, "8x224", 174, 148.37, 4.53),
        ("aim-b", {}, "8x224", 174, 207.9, 14.34),
    ],
)
def test_macs_and_trainable_parameters(
    build: Build, preset: str, options: dict[str, Any], shape: str, classes: int, gmacs: float, trainable_millions: float
) -> None:
    frames, resolution = (int(n) for n in shape.split("x"))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(preset, shape, classes=classes, **options)
        model(torch.empty(1, frames, 3, resolution, resolution))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.005)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable / 1e6 == pytest.approx(trainable_millions, rel=0.0005)


@pytest.mark.parametrize(
    ("preset", "options", "classes", "exact"),
    [
        ("timesformer-b", {}, 400, 121_566_352),
        ("videomae-b", {}, 400, 86_534_800),
        ("videomae-s", {}, 27, 16_568_091),
        ("videomae-s", {}, 174, 16_624_686),
        ("side4video-b", {}, 174, 21_112_686),
    ],
)
def test_trainable_parameters_exactly(build: Build, preset: str, options: dict[str, Any], classes: int, exact: int) -> None:
    with torch.device("meta"):
        model = build(preset, "8x224", classes=classes, **options)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == exact


@pytest.mark.parametrize(("frames", "tubelet", "gmacs"), [(1, 1, 3.19), (2, 2, 3.24), (4, 2, 6.49), (16, 2, 25.95)])
def test_videomae_s_as_its_paper_counts(build: Build, frames: int, tubelet: int, gmacs: float) -> None:
    """With fvcore, which leaves fused attention out."""
    from fvcore.nn import FlopCountAnalysis

    model = build("videomae-s", f"{frames}x224", classes=27, tubelet_size=tubelet).eval()
    analysis = (
        FlopCountAnalysis(model, torch.zeros(1, frames, 3, 224, 224)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    )
    assert round(analysis.total() / 1e9, 2) == gmacs


@pytest.mark.parametrize(
    ("preset", "options", "gmacs", "trainable_millions"),
    [
        ("moss-s", {}, 151.43, 5.55),
        ("moss-b", {}, 179.34, 22.33),
        ("moss-m", {}, 705.99, 24.10),
        ("moss-l", {}, 832.05, 82.14),
        ("moss-s", {"orders": []}, 148.37, 4.53),
        ("moss-s", {"orders": [1]}, 149.90, 5.04),
        ("moss-s", {"host": "finetune"}, 144.22, 87.29),
        ("moss-s", {"host": "aim"}, 211.41, 15.66),
    ],
)
def test_moss_as_its_paper_counts(build: Build, preset: str, options: dict[str, Any], gmacs: float, trainable_millions: float) -> None:
    """With fvcore and attention, without the correlations themselves; 8 x 224, 174 classes."""
    model = empty_build(lambda: build(preset, "8x224", classes=174, **options))
    counted = count(model, torch.empty(1, 8, 3, 224, 224))
    assert counted.macs_without_correlation / 1e9 == pytest.approx(gmacs, abs=0.01)
    assert parameters(model).trainable / 1e6 == pytest.approx(trainable_millions, abs=0.006)
