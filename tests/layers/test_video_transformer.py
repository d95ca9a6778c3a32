"""Transformers that see a clip: what they start as, what is trained, and the order of their parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchctl.layers.image_encoder import EncoderConfig
from benchctl.layers.video_transformer import Aim, FineTuned, VideoTransformer
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

CONFIG = EncoderConfig(encoder_width=16, encoder_heads=2, encoder_layers=3)
SPEC = ModelSpec(CONFIG, ClipShape(frames=4, resolution=32), num_classes=2, attention="sdpa")
AIM = partial(Aim, CONFIG, SPEC, bottleneck=4, scale=0.5)


def finetuned(*, temporal_conv: bool = True) -> FineTuned:
    torch.manual_seed(0)
    return FineTuned(CONFIG, SPEC, temporal_conv=temporal_conv).double().eval()


def aim(*, adapt_time_twice: bool = True) -> Aim:
    torch.manual_seed(0)
    return AIM(adapt_time_twice=adapt_time_twice).double().eval()


def clip() -> Tensor:
    return torch.randn(2, 4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def shaken(model: nn.Module) -> None:
    """Away from the zeros that the parts start with."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype, generator=generator))


@pytest.mark.parametrize("make", [finetuned, aim, partial(finetuned, temporal_conv=False), partial(aim, adapt_time_twice=False)])
def test_it_starts_as_its_encoder_averaged_over_frames(make: Callable[[], VideoTransformer]) -> None:
    model = make()
    with torch.no_grad():
        frames = []
        for t in range(4):
            tokens = model.encoder.embed(clip()[:, t])
            for index in range(3):
                tokens = model.encoder.block(index, tokens)
            frames.append(model.encoder.norm(tokens)[:, 0])
        torch.testing.assert_close(model(clip()), torch.stack(frames).mean(0))


@pytest.mark.parametrize(("make", "ordered"), [(finetuned, True), (aim, True), (partial(finetuned, temporal_conv=False), False)])
def test_the_order_of_frames(make: Callable[[], VideoTransformer], ordered: bool) -> None:
    model = make()
    shaken(model)
    with torch.no_grad():
        same = torch.allclose(model(clip()), model(clip().flip(1)))
    assert same is not ordered


def test_an_aim_block_is_the_papers() -> None:
    """Time, space and both, token after token and frame after frame."""
    model = aim()
    shaken(model)
    tokens = torch.randn(1, 4, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    adapters = model.adapters[1]
    assert isinstance(adapters, nn.ModuleDict)
    block = model.encoder.vit.blocks[1]
    with torch.no_grad():
        x = tokens.clone()
        over_time = torch.empty_like(x)
        for p in range(5):
            normal = block.norm1(tokens[:, :, p])
            over_time[:, :, p] = adapters["time"](block.attn(normal + adapters["time_in"](normal)))
        x = x + over_time
        inside = torch.stack([block.attn(block.norm1(x[:, t])) for t in range(4)], dim=1)
        x = x + inside + adapters["space"](inside)
        x = x + block.mlp(block.norm2(x)) + 0.5 * adapters["mlp"](block.norm2(x))
        torch.testing.assert_close(model.step(1, tokens), x)


def test_what_is_trained() -> None:
    assert all(p.requires_grad for p in finetuned().parameters())
    assert {name.split(".")[0] for name, p in aim().named_parameters() if p.requires_grad} == {"adapters", "time_position"}


@pytest.mark.parametrize("make", [finetuned, aim])
def test_a_module_beside_adds_to_the_patches_of_its_block(make: Callable[[], VideoTransformer]) -> None:
    model = make()
    seen: list[Tensor] = []

    def beside(patches_BTNC: Tensor) -> Tensor:
        seen.append(patches_BTNC)
        return patches_BTNC.flip(-1)

    with torch.no_grad():
        plain, changed = model(clip()), model(clip(), {2: beside})
        last = model(clip(), {3: torch.ones_like})
    assert seen[0].shape == (2, 4, 4, 16)
    assert not torch.allclose(plain, changed)
    # after the last block only the class token is read, to which nothing is added
    torch.testing.assert_close(last, plain)


def test_a_frozen_encoder_keeps_nothing_before_the_first_adapter() -> None:
    """The embedding runs without a graph: no image is kept for a gradient that nobody asks for."""
    saved: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    model = aim()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        model(clip())
    assert (8, 3, 32, 32) not in saved
    assert saved


def test_the_base_is_not_a_method() -> None:
    with pytest.raises(NotImplementedError):
        VideoTransformer(CONFIG, SPEC, frozen=True)(torch.zeros(1, 4, 3, 32, 32))
