from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchctl.methods.evl import Config, TemporalCrossAttention, mean_attention, queries_and_keys, sum_over_offsets

Build = Callable[..., nn.Module]


def clip(frames: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def moved(model: nn.Module) -> nn.Module:
    """The model with tables and positions that are no longer zero."""
    for reader in model.readers:
        for start in (reader.cross_attention.before, reader.cross_attention.after, reader.position):
            nn.init.normal_(start)
    return model


@pytest.mark.parametrize(
    ("preset", "options", "gmacs", "trainable"),
    [
        ("evl-b", {}, 172.87, 98_756_526),
        ("evl-b", {"decoder_layers": 4}, 151.29, 33_009_582),
        ("evl-l", {}, 797.18, 350_069_934),
    ],
)
def test_costs(build: Build, preset: str, options: dict[str, Any], gmacs: float, trainable: int) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(preset, "8x224", classes=174, **options)
        model(torch.empty(1, 8, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.0005)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def table_by_loop(attention: Tensor, table: Tensor, grid: int) -> Tensor:
    result = torch.zeros(attention.shape[0], grid * grid, table.shape[1], dtype=table.dtype)
    for q in range(grid * grid):
        for k in range(grid * grid):
            rows, columns = q // grid - k // grid, q % grid - k % grid
            entry = table[(rows + grid - 1) * (2 * grid - 1) + columns + grid - 1]
            result[:, q] = result[:, q] + attention[:, q, k, None] * entry
    return result


@settings(max_examples=25, deadline=None)
@given(grid=st.integers(1, 5), pairs=st.integers(0, 3), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_tables_are_read_by_offset(grid: int, pairs: int, width: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    attention = torch.rand(pairs, grid**2, grid**2, dtype=torch.float64, generator=random)
    table = torch.randn((2 * grid - 1) ** 2, width, dtype=torch.float64, generator=random, requires_grad=True)
    fast, slow = sum_over_offsets(attention, table, grid), table_by_loop(attention, table, grid)
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=0)
    if pairs:
        weights = torch.randn(fast.shape, dtype=torch.float64, generator=random)
        gradients = [torch.autograd.grad((out * weights).sum(), table)[0] for out in (fast, slow)]
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_attention_is_averaged_over_heads() -> None:
    query, key = torch.randn(2, 3, 4, 9, 5, dtype=torch.float64)
    attention = mean_attention(query.requires_grad_(), key)
    assert not attention.requires_grad
    for m in range(3):
        for q in range(9):
            expected = torch.stack([(key[m, h] @ query[m, h, q] / 5**0.5).softmax(0) for h in range(4)]).mean(0)
            torch.testing.assert_close(attention[m, q], expected.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_cross_attention_is_its_definition(frames: int) -> None:
    """Frame by frame in float64: the frame before through one table, the frame after through the other."""
    module = TemporalCrossAttention(grid=3, width=6).double()
    nn.init.normal_(module.before)
    nn.init.normal_(module.after)
    query, key = torch.randn(2, 2, frames, 2, 9, 4, dtype=torch.float64)
    expected = torch.zeros(2, frames, 9, 6, dtype=torch.float64)
    for t in range(frames):
        for other, table in ((t - 1, module.before), (t + 1, module.after)):
            if 0 <= other < frames:
                weights = (query[:, t] @ key[:, other].transpose(-2, -1) / 2).softmax(-1).mean(1)
                expected[:, t] += table_by_loop(weights, table, 3)
    torch.testing.assert_close(module(query, key), expected, atol=1e-12, rtol=0)


def test_queries_and_keys_are_those_of_the_block_that_ran(build: Build) -> None:
    encoder = build("evl-tiny", "8x64").encoder
    given: dict[int, Tensor] = {}
    for index, block in enumerate(encoder.vit.blocks):
        block.attn.register_forward_pre_hook(lambda _, inputs, index=index: given.update({index: inputs[0]}))
    seen = 0
    with queries_and_keys(encoder, first=2) as latest:
        for index, _ in enumerate(encoder.features(clip().flatten(0, 1))):
            if index < 2:
                assert latest == {}
                continue
            qkv = encoder.vit.blocks[index].attn.qkv(given[index]).view(16, 17, 3, 3, 32)
            torch.testing.assert_close(latest["query"], qkv[:, :, 0].transpose(1, 2))
            torch.testing.assert_close(latest["key"], qkv[:, :, 1].transpose(1, 2))
            seen += 1
    assert seen == 2
    assert not any(m._forward_hooks for m in encoder.modules())


def test_forward_is_the_decoder_written_out(build: Build) -> None:
    model = moved(build("evl-tiny", "8x64")).eval()
    encoder, query = model.encoder, model.query.expand(2, -1, -1)
    with torch.no_grad():
        x = encoder.embed(clip().flatten(0, 1))
        for index, block in enumerate(encoder.vit.blocks):
            qkv = block.attn.qkv(block.norm1(x)).view(2, 8, 17, 3, 3, 32)
            x = block(x)
            if index < 2:
                continue
            reader = model.readers[index - 2]
            tokens = x.view(2, 8, 17, 96)
            series = tokens.permute(0, 2, 3, 1).reshape(34, 96, 8)
            convolved = F.conv1d(series, reader.conv.weight[..., 0], reader.conv.bias, padding=1, groups=96)
            y = tokens + convolved.view(2, 17, 96, 8).permute(0, 3, 1, 2) + reader.position
            q, k = (qkv[:, :, 1:, i].transpose(2, 3) for i in (0, 1))
            y[:, :, 1:] += reader.cross_attention(q, k)
            part = reader.decoder
            own, read = part.query_norm(query), part.token_norm(y.flatten(1, 2))
            projected = (part.attention.query(own), *part.attention.key_value(read).chunk(2, dim=-1))
            q, k, v = (z.view(2, -1, 3, 32).transpose(1, 2) for z in projected)
            mixed = (q @ k.transpose(-2, -1) / 32**0.5).softmax(-1) @ v
            query = query + part.attention.out(mixed.transpose(1, 2).reshape(2, 1, 96))
            hidden = part.mlp[0](part.mlp_norm(query))
            query = query + part.mlp[3](hidden * torch.sigmoid(1.702 * hidden))
        expected = model.classifier(model.norm(query[:, 0]))
        torch.testing.assert_close(model(clip()), expected, atol=1e-5, rtol=1e-4)


def test_the_order_of_frames_counts(build: Build) -> None:
    model = build("evl-tiny", "8x64").eval()
    shuffled = clip()[:, torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])]
    with torch.no_grad():
        assert (model(clip()) - model(shuffled)).abs().max() > 1e-3
        # without the convolution and with tables and positions at their start, the decoder reads a set of frames
        for reader in model.readers:
            nn.init.zeros_(reader.conv.weight)
        torch.testing.assert_close(model(clip()), model(shuffled))
        nn.init.normal_(model.readers[0].cross_attention.before)
        assert (model(clip()) - model(shuffled)).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_any_number_of_frames(build: Build, frames: int) -> None:
    model = build("evl-tiny", f"{frames}x64")
    F.cross_entropy(model(clip(frames)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_training_keeps_nothing_from_inside_the_encoder(build: Build) -> None:
    model = build("evl-tiny", "8x64").train()
    inside, from_inside, saved = [False], 0, []
    for block in model.encoder.vit.blocks:
        block.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True))
        block.register_forward_hook(lambda *_: inside.__setitem__(0, False))

    def pack(tensor: Tensor) -> Tensor:
        nonlocal from_inside
        from_inside += inside[0]
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(clip(batch=1))
    assert from_inside == 0
    # of attention between frames, one matrix per pair of frames and table is kept, not one per head
    matrices = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved if t.shape[-1] == 16 and t.shape[-2] != 16}
    assert list(matrices.values()) == [7 * 16 * 16 * 4] * 4


def test_only_the_decoder_is_trained(build: Build) -> None:
    model = build("evl-tiny", "8x64")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"query", "readers", "norm", "classifier"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"decoder_layers": 13}, "13 decoder layers cannot read 12 encoder layers"),
        ({"encoder": "eva-clip-b16"}, "has rotary positions"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_published_encoder_weights_load(build: Build, publish_clip: Build) -> None:
    published = publish_clip()
    model = build("evl-tiny", "8x64", pretrained=True, weights="hub/clip")
    assert model.weights == "hub/clip, decoder random"
    assert torch.equal(model.encoder.vit.blocks[3].attn.qkv.weight, published.blocks[3].attn.qkv.weight)
