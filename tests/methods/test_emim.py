"""EMIM: its costs, what its options mean, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchctl import suite_file
from benchctl.errors import BenchctlError, ShapeError
from benchctl.layers.uniformer import JointAttention
from benchctl.methods.emim import BesideCostVolume, Config, ExplicitMotion
from benchctl.plan import expand
from benchctl.probes.flops import count
from benchctl.probes.hollow import empty_build
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]


def clip(frames: int = 4) -> Tensor:
    return torch.randn(2, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def attentions(model: nn.Module, stage: int) -> list[nn.Module]:
    return [block.attn for block in model.video.get_submodule(f"blocks{stage}")]


@pytest.mark.parametrize(
    ("preset", "frames", "options", "gmacs"),
    [
        ("emim-s", 16, {}, 85.34),
        ("emim-s", 16, {"strategy": "O-E"}, 85.79),
        ("emim-s", 16, {"strategy": "E-E"}, 61.49),
        ("emim-s", 16, {"stages": [3], "window": 3}, 84.69),
        ("emim-s", 16, {"stages": [3], "window": 5}, 85.22),
        ("emim-s", 16, {"stages": [3], "window": 7}, 86.24),
        ("emim-s", 16, {"stages": [3], "window": 9}, 88.05),
        ("emim-s", 16, {"stages": [3], "window": 11}, 91.04),
        ("emim-b", 16, {}, 198.34),
        ("emim-b", 32, {}, 526.33),
    ],
)
def test_costs_are_the_published_ones(build: Build, preset: str, frames: int, options: dict[str, Any], gmacs: float) -> None:
    """Tables 1, 4, 5 and 8, with what a window asks for."""
    model = empty_build(lambda: build(preset, f"{frames}x224", classes=174, **options))
    assert count(model, torch.empty(1, frames, 3, 224, 224)).macs_windowed / 1e9 == pytest.approx(gmacs, abs=0.01)


@pytest.mark.parametrize(
    ("strategy", "replaced"),
    [("E-O", [1, 0, 1, 0, 1]), ("O-E", [0, 1, 0, 1, 0]), ("E-E", [1] * 5), ("O-O", [0] * 5)],
)
def test_a_strategy_says_which_blocks_are_replaced(build: Build, strategy: str, replaced: list[int]) -> None:
    model = build("emim-tiny", "4x64", strategy=strategy, depths=[1, 1, 5, 1])
    assert [isinstance(a, ExplicitMotion) for a in attentions(model, 3)] == [bool(r) for r in replaced]
    assert isinstance(attentions(model, 4)[0], ExplicitMotion) is bool(replaced[0])
    only = build("emim-tiny", "4x64", strategy=strategy, stages=[4])
    assert not any(isinstance(a, ExplicitMotion) for a in attentions(only, 3))


def test_without_replaced_blocks_it_is_uniformer(build: Build) -> None:
    """The same weights under the same names give the same logits."""
    emim = build("emim-tiny", "4x64", strategy="O-O").eval()
    uniformer = build("uniformer-tiny", "4x64", temporal_downsampling=False).eval()
    uniformer.load_state_dict(emim.state_dict())
    with torch.no_grad():
        assert torch.equal(emim(clip()), uniformer(clip()))


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "non-sliding"},
        {"motion": False},
        {"same_frame": True, "motion": False},
        {"interval": 3},
        {"integration": "cost-volume"},
        {"strategy": "E-E", "stages": [3], "window": 5},
    ],
)
def test_every_option_trains_everything_that_it_has(build: Build, options: dict[str, Any]) -> None:
    model = build("emim-tiny", "4x64", classes=2, **options).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # where the last layer is zero, the first step reaches it alone
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters() if ".attn." in name}
    assert [name for name, g in gradients.items() if g is None or g.abs().sum() == 0] == []


def seen_by(module: nn.Module, frames: int, frame: int, row: int, column: int) -> set[tuple[int, int, int]]:
    """From which tokens of an 8 x 8 grid one output of what attends gets a gradient."""
    x = torch.randn(1, frames, 8, 8, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module(x)[0, frame, row, column].square().sum().backward()
    assert x.grad is not None
    return {tuple(place) for place in x.grad[0].abs().sum(-1).nonzero().tolist()}


def square(frame: int, rows: range, columns: range) -> set[tuple[int, int, int]]:
    return {(frame, row, column) for row in rows for column in columns}


@pytest.mark.parametrize(
    ("options", "frame", "looked_at"),
    [
        ({}, 1, square(2, range(3, 6), range(4, 7))),
        ({}, 3, square(3, range(3, 6), range(4, 7))),
        ({"interval": 2}, 1, square(3, range(3, 6), range(4, 7))),
        ({"interval": 3}, 2, square(3, range(3, 6), range(4, 7))),
        ({"same_frame": True}, 1, square(1, range(3, 6), range(4, 7))),
        ({"sampling": "non-sliding"}, 1, square(2, range(3, 6), range(3, 6))),
        ({"window": 5}, 1, square(2, range(2, 7), range(3, 8))),
    ],
)
def test_a_query_looks_where_it_is_said_to(build: Build, options: dict[str, Any], frame: int, looked_at: set[tuple[int, int, int]]) -> None:
    """At itself, its query, and at the window: of the next frame, of the last frame where there is none, or of its own."""
    module = attentions(build("emim-tiny", "4x64", stages=[3], **options), 3)[0]
    nn.init.normal_(module.motion.fc2.weight)
    assert seen_by(module, 4, frame, 4, 5) == looked_at | {(frame, 4, 5)}


def test_heads_share_one_reading_of_their_scores(build: Build) -> None:
    """Equation 5, added before the projection: with the same scores in every head, every head is given the same."""
    module = attentions(build("emim-tiny", "4x64"), 3)[0]
    assert [p.shape for p in module.motion.parameters()] == [(36, 9), (36,), (32, 36), (32,)]
    nn.init.normal_(module.motion.fc2.weight)
    for parameter in (module.qkv.weight, module.qkv.bias, module.window.bias):
        nn.init.zeros_(parameter)
    nn.init.eye_(module.proj.weight)
    out = module(torch.randn(1, 4, 8, 8, 64))
    expected = module.motion(torch.zeros(9))
    torch.testing.assert_close(out, torch.cat([expected, expected]).expand_as(out))


def test_a_cost_volume_is_cosine_similarity_with_the_next_frame(build: Build) -> None:
    model = build("emim-tiny", "4x64", integration="cost-volume")
    first, second = attentions(model, 3)
    assert isinstance(first, BesideCostVolume)
    assert type(second) is JointAttention
    tokens = torch.randn(1, 4, 8, 8, 64)
    volume = first.volume(tokens)
    shown = torch.cosine_similarity(tokens[0, 1, 4, 5], tokens[0, 2, 3, 6], dim=0)
    torch.testing.assert_close(volume[0, 1, 4, 5, 2], shown)  # one up, one to the right
    torch.testing.assert_close(volume[0, 3, :, :, 4], torch.ones(8, 8))  # the last frame with itself
    assert volume[0, 0, 0, 0, :3].abs().max() == 0
    assert first.volume.window_macs == 4 * 8 * 8 * 9 * 64


def test_weights_of_uniformer_load(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "hub" / "video").mkdir(parents=True)
    source = build("uniformer-tiny", "4x64", classes=5, seed=1).video.state_dict()
    torch.save(source, tmp_path / "hub" / "video" / "small.pth")
    name = "hub/video:small.pth"
    for options, said in (
        ({}, f"{name}, relative biases and motion MLPs as initialised"),
        ({"classes": 7}, f"{name}, head random (7 classes, published 5), relative biases and motion MLPs as initialised"),
        ({"motion": False}, f"{name}, relative biases as initialised"),
        ({"integration": "cost-volume"}, f"{name}, motion MLPs as initialised"),
        ({"strategy": "O-O"}, name),
    ):
        model = build("emim-tiny", "4x64", pretrained=True, weights=name, **{"classes": 5, **options})
        assert model.weights == said
        loaded = model.video.state_dict()
        assert all(torch.equal(loaded[n], tensor) for n, tensor in source.items() if "head" not in n)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"window": 4}, "window 4 has no centre: use 3 or 5"),
        ({"window": 13}, "less than or equal to 11"),
        ({"interval": 4}, "less than or equal to 3"),
        ({"strategy": "E"}, "strategy"),
        ({"stages": [2]}, "stages"),
        ({"stages": [4, 3]}, "stages 4, 3 must rise"),
        ({"stages": []}, "stages"),
        ({"same_frame": True, "interval": 2}, "interval 2 is about a later frame"),
        ({"integration": "cost-volume", "motion": False}, "leave sampling, motion, same_frame"),
        ({"integration": "cost-volume", "sampling": "non-sliding"}, "leave sampling, motion, same_frame"),
    ],
)
def test_options_that_cannot_be_name_themselves(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_a_window_beyond_a_grid_is_refused() -> None:
    Config().check(ClipShape(frames=16, resolution=224), pad=False)
    Config(window=11, stages=[3]).check(ClipShape(frames=16, resolution=224), pad=False)
    Config(window=11, strategy="O-O").check(ClipShape(frames=16, resolution=224), pad=False)
    with pytest.raises(ShapeError, match=r"window 9 is larger than the 7 x 7 grid of stage 4 at resolution 224.*'window: 7' or .* 288"):
        Config(window=9).check(ClipShape(frames=16, resolution=224), pad=False)
    with pytest.raises(ShapeError, match=r"window 7 is larger than the 2 x 2 grid of stage 4 at resolution 60; use a resolution of 224"):
        Config(stages=[4]).check(ClipShape(frames=16, resolution=60), pad=True)


def test_a_plan_says_so_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\ntask: profile\nmethods: [emim-s]\nsweep: [{frames: 16, resolution: 128}]\n", encoding="utf-8")
    with pytest.raises(BenchctlError, match=r"s\.yaml:\d+:\d+: .*window 7 is larger than the 4 x 4 grid of stage 4"):
        expand(suite_file.load(file))
