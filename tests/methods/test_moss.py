"""MOSS in its hosts: what the options mean, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchctl import suite_file
from benchctl.errors import BenchctlError, ShapeError
from benchctl.layers.image_encoder import ENCODERS
from benchctl.methods.moss import Config
from benchctl.plan import expand
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]

HOSTS: list[dict[str, Any]] = [{"host": "side4video"}, {"host": "finetune"}, {"host": "aim"}]


def clip(frames: int = 8) -> Tensor:
    return torch.randn(2, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_without_orders_it_is_side4video(build: Build) -> None:
    """The same weights under the same names give the same logits."""
    sizes = {"patch_size": 8}
    moss, side = build("moss-tiny", "8x64", orders=[]).eval(), build("side4video-tiny", "8x64", **sizes).eval()
    side.load_state_dict(moss.state_dict())
    with torch.no_grad():
        assert torch.equal(moss(clip()), side(clip()))


@pytest.mark.parametrize("changes", HOSTS)
@pytest.mark.parametrize("orders", [[1], [2], [1, 2], [1, 2, 3, 4]])
def test_orders_change_the_logits(build: Build, changes: dict[str, Any], orders: list[int]) -> None:
    model = build("moss-tiny", "8x64", orders=orders, **changes).eval()
    baseline = build("moss-tiny", "8x64", orders=[], **changes).eval()
    baseline.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("motion.")})
    with torch.no_grad():
        same = torch.equal(model(clip()), baseline(clip()))
    # hosts that it is added to start as they were; a side network, random itself, does not
    assert same is (changes["host"] != "side4video")


@pytest.mark.parametrize("changes", HOSTS)
def test_every_host_trains_the_module(build: Build, changes: dict[str, Any]) -> None:
    model = build("moss-tiny", "8x64", classes=2, **changes).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # where the last layer is zero, the first step reaches it alone
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in model.motion.named_parameters()}
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values()), gradients.keys()


@pytest.mark.parametrize("alternative", ["r2plus1d", "factorised-attention", "local-attention", "difference", "selfy", "atm"])
@pytest.mark.parametrize("orders", [[], [1]])
def test_alternatives_take_the_place_of_orders(build: Build, alternative: str, orders: list[int]) -> None:
    model = build("moss-tiny", "8x64", orders=orders, alternative=alternative).train()
    nn.functional.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_every_encoder_carries_it(build: Build, encoder: str) -> None:
    model = build("moss-tiny", "4x56", encoder=encoder, patch_size=14)
    assert model(torch.randn(1, 4, 3, 56, 56)).isfinite().all()
    assert model.motion["2"].grid == 4


def test_the_window_reaches_as_far_as_it_says(build: Build) -> None:
    """With order 1 alone and a window of one frame, no order of frames is seen by the module; with three, it is."""
    for frames, sees in ((1, False), (3, True)):
        model = build("moss-tiny", "8x64", orders=[1], window=[frames, 5, 5]).eval()
        patches = torch.randn(1, 8, 64, 96, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            forth, back = model.motion["2"](patches), model.motion["2"](patches.flip(1)).flip(1)
        assert torch.allclose(forth, back, atol=1e-6) is not sees


def test_two_positions_are_two_modules(build: Build) -> None:
    model = build("moss-tiny", "8x64", positions=[2, 4])
    assert list(model.motion) == ["2", "4"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"orders": [0]}, "greater than or equal to 1"),
        ({"orders": [5]}, "less than or equal to 4"),
        ({"orders": [2, 1]}, "orders 2, 1 must rise"),
        ({"orders": [1, 1]}, "orders 1, 1 must rise"),
        ({"window": [5, 8, 9]}, "window: window side U is 8.*use 7 or 9"),
        ({"window": [[5, 9, 9], [4, 9, 9]]}, "window: window side L is 4"),
        ({"window": [[5, 9, 9]] * 3}, "window has 3 entries, and the highest of the orders is 2"),
        ({"window": [5, 9]}, "window"),
        ({"positions": [13], "host": "finetune"}, "positions 13 is beyond the 12 layers of the encoder"),
        ({"positions": [14]}, "positions 14 is beyond the 12 layers of the encoder"),
        ({"positions": [3]}, "positions 3 feeds no side block: they are fed after every 2 encoder layers"),
        ({"positions": []}, "positions"),
        ({"alternative": "atm"}, r"orders must be \[1\] or \[\]"),
        ({"orders": [1], "fusion": "conv"}, "fusion 'conv' is about the second order"),
        ({"side_heads": 5}, "side width 192 is not a multiple of 5 heads"),
    ],
)
def test_options_that_cannot_be_name_themselves(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_a_window_beyond_the_grid_needs_padding() -> None:
    Config().check(ClipShape(frames=8, resolution=64), pad=False)
    strict = Config(pad_window=False)
    strict.check(ClipShape(frames=8, resolution=224), pad=False)
    with pytest.raises(ShapeError, match=r"window side U is 9 and there are only 4 to look at.*'pad_window: true'"):
        strict.check(ClipShape(frames=8, resolution=64), pad=False)
    with pytest.raises(ShapeError, match="window side L is 5 and there are only 4"):
        strict.check(ClipShape(frames=4, resolution=224), pad=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{window: [5, 8, 9]}", "options: moss-s: window: window side U is 8"),
        ("{positions: [14]}", "options: .*positions 14 is beyond the 12 layers"),
        ("{orders: [5]}", r"options\.orders\[0\]: .*less than or equal to 4"),
        ("{pad_window: false}", "window side U is 9 and there are only 4"),
    ],
)
def test_a_plan_says_so_before_anything_runs(options: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: s\ntask: profile\nmethods: [{{name: moss-s, options: {options}}}]\nsweep: [{{frames: 8, resolution: 64}}]\n",
        encoding="utf-8",
    )
    with pytest.raises(BenchctlError, match=rf"s\.yaml:\d+:\d+: .*{said}"):
        expand(suite_file.load(file))


def test_published_encoder_weights_load(build: Build, publish_clip: Build) -> None:
    published = publish_clip(patch_size=8)
    for changes in HOSTS:
        model = build("moss-tiny", "8x64", pretrained=True, weights="hub/clip", **changes)
        assert model.weights == "hub/clip, all else random"
        assert torch.equal(model.video.encoder.vit.blocks[3].mlp.fc2.weight, published.blocks[3].mlp.fc2.weight)
