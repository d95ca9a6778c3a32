"""The side network's pieces against plain loops in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchctl.layers.side_network import (
    ChannelsLastBatchNorm,
    SideFeed,
    SideShape,
    SideTokenizer,
    TBlock,
    TemporalConv,
    tok_shift,
)

B, T, N, D = 2, 4, 6, 8
SIDE = SideShape(width=D, heads=2, blocks=3, encoder_width=12, grid=2, patch_size=4)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shifted(token: Tensor) -> Tensor:
    out = torch.zeros_like(token)
    batch, frames, width = token.shape
    for b in range(batch):
        for t in range(frames):
            for d in range(width):
                source = t + 1 if d < width // 2 else t - 1
                if 0 <= source < frames:
                    out[b, t, d] = token[b, source, d]
    return out


@given(batch=st.integers(1, 3), frames=st.integers(1, 6), width=st.integers(1, 9))
def test_tok_shift_is_the_loop(batch: int, frames: int, width: int) -> None:
    token = torch.randn(batch, frames, width, dtype=torch.float64)
    assert torch.equal(tok_shift(token), shifted(token))


def test_tok_shift_worked_example() -> None:
    token = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])
    assert tok_shift(token).tolist() == [[[2.0, 0.0], [3.0, 10.0], [0.0, 20.0]]]


def test_temporal_convolution_is_the_loop() -> None:
    conv = TemporalConv(D).double()
    x = torch.randn(B, T, N, D, dtype=torch.float64)
    inner = x @ conv.into.weight.T + conv.into.bias
    mixed = torch.zeros_like(inner)
    for t in range(T):
        for d in range(D):
            mixed[:, t, :, d] = conv.time.bias[d]
            for k in range(3):
                if 0 <= t + k - 1 < T:
                    mixed[:, t, :, d] += conv.time.weight[d, 0, k, 0] * inner[:, t + k - 1, :, d]
    torch.testing.assert_close(conv(x), mixed @ conv.out.weight.T + conv.out.bias)


def test_temporal_convolution_keeps_patches_apart() -> None:
    conv = TemporalConv(D).double()
    x = torch.randn(B, T, N, D, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 0] += 1
    same = conv(x) == conv(changed)
    assert same[:, :, 1:].all()
    assert not same[:, :, 0].all()


def test_norm_is_over_all_positions() -> None:
    norm = ChannelsLastBatchNorm(D).double().train()
    x = torch.randn(B, T, N, D, dtype=torch.float64) * 3 + 1
    flat = x.reshape(-1, D)
    expected = (x - flat.mean(0)) / (flat.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_tokenizer_is_a_convolution_over_three_frames() -> None:
    tokenizer = SideTokenizer(D, patch_size=2).double().train()
    clip = torch.randn(B, T, 3, 4, 6, dtype=torch.float64)
    raw = torch.zeros(B, T, 6, D, dtype=torch.float64)
    for t in range(T):
        for n in range(6):
            row, column = n // 3 * 2, n % 3 * 2
            raw[:, t, n] = tokenizer.conv.bias
            for k in range(3):
                if 0 <= t + k - 1 < T:
                    patch = clip[:, t + k - 1, :, row : row + 2, column : column + 2]
                    raw[:, t, n] += torch.einsum("bchw,dchw->bd", patch, tokenizer.conv.weight[:, :, k])
    torch.testing.assert_close(tokenizer(clip), ChannelsLastBatchNorm(D).double().train()(raw))


def test_feed_is_a_linear_layer_on_normalised_tokens() -> None:
    feed = SideFeed(SIDE).double()
    tokens = torch.randn(B, T, 1 + N, 12, dtype=torch.float64)
    normal = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + feed.norm.eps).sqrt()
    torch.testing.assert_close(feed(tokens), normal @ feed.linear.weight.T + feed.linear.bias)


def test_block_is_its_three_residuals() -> None:
    block = TBlock(SIDE, "eager").double().eval()
    x, token, position = torch.randn(B, T, N, D), torch.randn(B, T, D), torch.randn(N, D)
    x, token, position = x.double(), token.double(), position.double()
    y = x + block.conv(block.conv_norm(x))
    seen = block.attention_norm(torch.cat([shifted(token)[:, :, None], y + position], dim=2))
    # frame by frame: patches ask, the class token and the patches answer
    y = y + torch.stack([block.attention(seen[:, t, 1:], seen[:, t]) for t in range(T)], dim=1)
    y = y + block.mlp(block.mlp_norm(y))
    torch.testing.assert_close(block(x, token, position), y)


def test_block_reads_neighbouring_frames_only() -> None:
    block = TBlock(SIDE, "sdpa").eval()
    x, token, position = torch.randn(1, 6, N, D), torch.randn(1, 6, D), torch.zeros(N, D)
    later_x, later_token = x.clone(), token.clone()
    later_x[:, 4:] += 1
    later_token[:, 4:] += 1
    same = (block(x, token, position) == block(later_x, later_token, position)).all(dim=3).all(dim=2)[0]
    assert same.tolist() == [True, True, True, False, False, False]
