"""The blocks of UniFormer: what they are, and under which names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchctl.layers.uniformer import (
    AttentionBlock,
    AttentionPlace,
    ConvBlock,
    JointAttention,
    PatchEmbed,
    UniFormerClassifier,
    UniFormerConfig,
)
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

SIZES: dict[str, Any] = {"patch_size": 16, "stem_stride": 2, "depths": (1, 2, 2, 1), "widths": (8, 8, 16, 32), "head_width": 8}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classifier(frames: int = 4, **changes: Any) -> tuple[UniFormerClassifier, list[AttentionPlace]]:
    config = UniFormerConfig(**{**SIZES, **changes})
    places: list[AttentionPlace] = []

    def attention(place: AttentionPlace) -> nn.Module:
        places.append(place)
        return JointAttention(place.width, place.heads, "sdpa")

    spec = ModelSpec(config, ClipShape(frames=frames, resolution=32), num_classes=3, attention="sdpa")
    return UniFormerClassifier(spec, attention), places


def test_attention_is_among_all_tokens_of_a_clip() -> None:
    """Against its definition, one query after another."""
    module = JointAttention(8, 2, "eager").double()
    x = drawn(1, 2, 2, 3, 8).double()
    query, key, value = module.qkv(x.view(12, 8)).view(12, 3, 2, 4).unbind(1)
    expected = torch.empty(12, 2, 4, dtype=torch.float64)
    for place in range(12):
        for head in range(2):
            weights = torch.stack([query[place, head] @ key[other, head] / 2 for other in range(12)]).softmax(0)
            expected[place, head] = sum(weights[other] * value[other, head] for other in range(12))
    torch.testing.assert_close(module(x), module.proj(expected.flatten(1)).view(x.shape))


def test_a_convolutional_block_is_its_parts_in_order() -> None:
    block, x = ConvBlock(8, 2, 0.0).eval(), drawn(1, 8, 3, 4, 4)
    y = x + block.pos_embed(x)
    y = y + block.conv2(block.attn(block.conv1(block.norm1(y))))
    y = y + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(y))))
    assert torch.equal(block(x), y)
    assert [block.pos_embed.kernel_size, block.attn.kernel_size, block.conv1.kernel_size] == [(3,) * 3, (5,) * 3, (1,) * 3]
    assert block.pos_embed.groups == block.attn.groups == 8


def test_what_attends_in_a_block_reads_normalised_tokens() -> None:
    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.tokens = x
            return torch.zeros_like(x)

    block = AttentionBlock(8, 2, 0.0, Seen())
    block(drawn(2, 8, 3, 4, 5))
    assert block.attn.tokens.shape == (2, 3, 4, 5, 8)
    assert block.attn.tokens.mean(-1).abs().max() < 1e-5


def test_patches_are_normalised_by_channel_and_in_the_order_of_the_frame() -> None:
    embed = PatchEmbed(3, 8, 2, frames=3, frame_stride=2)
    x = drawn(1, 3, 5, 4, 6)
    found = embed(x)
    assert found.shape == (1, 8, 3, 2, 3)
    torch.testing.assert_close(found[0, :, 1, 1, 2], embed.norm(embed.proj(x)[0, :, 1, 1, 2]))


@pytest.mark.parametrize(("frames", "downsampled", "expected"), [(4, True, 2), (5, True, 3), (1, True, 1), (4, False, 4)])
def test_frames_and_grids_are_those_of_the_tokens(frames: int, downsampled: bool, expected: int) -> None:
    model, places = classifier(frames, temporal_downsampling=downsampled)
    shapes = {}
    for stage in (3, 4):
        model.video.get_submodule(f"blocks{stage}.0.attn").register_forward_pre_hook(
            lambda _, given, stage=stage: shapes.update({stage: tuple(given[0].shape[1:])})
        )
    model(drawn(2, frames, 3, 32, 32))
    assert [(p.stage, p.index) for p in places] == [(3, 0), (3, 1), (4, 0)]
    for place in places:
        assert shapes[place.stage] == (expected, place.grid, place.grid, place.width)
        assert place.heads == place.width // 8


def test_stochastic_depth_grows_with_the_block() -> None:
    model, _ = classifier(drop_path=0.5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in range(1, 5) for block in model.video.get_submodule(f"blocks{stage}")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    clip = drawn(2, 4, 3, 32, 32)
    assert not torch.equal(model.train()(clip), model(clip))
    assert torch.equal(model.eval()(clip), model(clip))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stem_stride": 4}, "patch_size 16 must be 32: stem_stride 4, halved three times"),
        ({"patch_size": 32}, "patch_size 32 must be 16"),
        ({"head_width": 5}, "width 16 of a stage that attends is not a multiple of head_width 5"),
        ({"depths": (1, 2, 3)}, "depths"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_sizes_that_cannot_be_name_themselves(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UniFormerConfig(**{**SIZES, **wrong})
