from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchctl.methods.dist import Config, IntegrationToTemporal, TemporalToIntegration

Build = Callable[..., nn.Module]


def clip(frames: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("preset", "shape", "gmacs", "trainable"),
    [
        ("dist-b", "16x224", 161.88, 18_834_606),
        ("dist-b", "32x224", 323.76, 18_877_614),
        ("dist-l", "16x224", 705.69, 32_240_814),
    ],
)
def test_costs(build: Build, preset: str, shape: str, gmacs: float, trainable: int) -> None:
    frames = int(shape.partition("x")[0])
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(preset, shape, classes=174)
        model(torch.empty(1, frames, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.0005)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def over_channels(norm: nn.Module, x_BDTHW: Tensor) -> Tensor:
    result: Tensor = norm(x_BDTHW.movedim(1, -1)).movedim(-1, 1)
    return result


def as_3d(conv: nn.Conv2d, *, time: bool) -> Tensor:
    """A kernel over time, or over space, as one over both."""
    return conv.weight.unsqueeze(-1) if time else conv.weight.unsqueeze(2)


def decoded(decoder: nn.Module, query: Tensor, tokens: Tensor, heads: int) -> Tensor:
    """A decoder layer by torch's own multi-head attention, sequence first."""
    part = decoder.attention
    q, k = decoder.query_norm(query).transpose(0, 1), decoder.query_norm(tokens).transpose(0, 1)
    weight = torch.cat([part.query.weight, part.key_value.weight])
    bias = torch.cat([part.query.bias, part.key_value.bias])
    mixed, _ = F.multi_head_attention_forward(
        q, k, k, q.shape[-1], heads, weight, bias, None, None, False, 0.0, part.out.weight, part.out.bias, need_weights=False
    )
    query = query + mixed.transpose(0, 1)
    result: Tensor = query + decoder.mlp[3](quick_gelu(decoder.mlp[0](decoder.mlp_norm(query))))
    return result


def branches(model: nn.Module, video: Tensor) -> tuple[Tensor, Tensor]:
    """The temporal encoder and the integration branch on (B, D, T, H, W) with 3-D kernels; the integrated tokens and CLIP's last."""
    x = F.conv3d(video.movedim(2, 1), model.stem.weight, model.stem.bias, stride=(1, 16, 16), padding=(2, 0, 0))
    tokens = model.encoder.embed(video[:, ::2].flatten(0, 1))
    given: Tensor | float = 0.0
    for i, block in enumerate(model.encoder.vit.blocks):
        tokens = block(tokens)
        part = model.temporal[i]
        inner = F.conv3d(over_channels(part.norm, x), as_3d(part.time, time=True), part.time.bias, padding=(1, 0, 0))
        x = quick_gelu(x + F.conv3d(quick_gelu(inner), as_3d(part.space, time=False), part.space.bias, padding=(0, 1, 1)))
        before = model.feeds[i](tokens.view(2, 4, 17, 96)) + given
        down = model.to_integration[i]
        fed = F.conv3d(x, as_3d(down.conv, time=True), down.conv.bias, stride=(2, 1, 1))
        mixed = before + torch.cat([down.token.repeat(2, 1, 1, 1), fed.flatten(3).permute(0, 2, 3, 1)], dim=2)
        part = model.integration[i]
        series = part.temporal[0](part.temporal_norm(mixed)).permute(0, 3, 1, 2).unsqueeze(-1)
        series = F.conv3d(series, as_3d(part.temporal[1], time=True), part.temporal[1].bias, padding=(1, 0, 0))
        bottleneck = part.temporal[3](quick_gelu(series).squeeze(-1).permute(0, 2, 3, 1))
        given = part.mlp[2](quick_gelu(part.mlp[0](part.norm(mixed)))) + bottleneck
        if i < 3:
            patches = model.to_temporal[i].linear(before[:, :, 1:]).permute(0, 3, 1, 2).unflatten(3, (4, 4))
            x = x + F.interpolate(patches, size=(8, 4, 4), mode="nearest")
    return mixed + given, tokens.view(2, 4, 17, 96)


def test_forward_is_the_three_branches_written_out(build: Build) -> None:
    model = build("dist-tiny", "8x64").eval()
    with torch.no_grad():
        integrated, last = branches(model, clip())
        top, frames = model.clip_token.repeat(2, 1, 1), model.frame_token.repeat(8, 1, 1)
        for pooling in model.pooling:
            frames = decoded(pooling.space, frames, integrated.flatten(0, 1), heads=3)
            top = decoded(pooling.time, top, frames.view(2, 4, 48) + pooling.position, heads=3)
        expected = model.classifier(model.norm(top[:, 0] + model.class_feed(last[:, :, 0].mean(1))))
        torch.testing.assert_close(model(clip()), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (1, 2), (5, 2), (6, 2), (7, 3)])
def test_groups_of_frames_become_one(frames: int, stride: int) -> None:
    """Group by group in float64; what is missing in the last group counts as zero, and going back gives each frame its group's."""
    config = Config(temporal_stride=stride, temporal_width=5, integration_width=8, integration_heads=2)
    seen = -(-frames // stride)
    down = TemporalToIntegration(config, seen, prefix_tokens=1).double()
    up = IntegrationToTemporal(config, prefix_tokens=1).double()
    x = torch.randn(2, frames, 9, 5, dtype=torch.float64)
    expected = torch.zeros(2, seen, 10, 8, dtype=torch.float64)
    expected[:, :, 0] = down.token[:, 0]
    expected[:, :, 1:] = down.conv.bias
    for t in range(frames):
        expected[:, t // stride, 1:] += x[:, t] @ down.conv.weight[:, :, t % stride, 0].T
    torch.testing.assert_close(down(x), expected, atol=1e-12, rtol=0)
    back = up(expected, frames)
    assert back.shape == x.shape
    for t in range(frames):
        torch.testing.assert_close(back[:, t], up.linear(expected[:, t // stride, 1:]), atol=1e-12, rtol=0)


def test_clip_sees_every_second_frame(build: Build) -> None:
    model = build("dist-tiny", "5x64").eval()
    seen: list[Tensor] = []
    model.encoder.vit.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    video = clip(5)
    model(video)
    assert torch.equal(seen[0].view(2, 3, 3, 64, 64), video[:, [0, 2, 4]])


def test_every_frame_counts(build: Build) -> None:
    model = build("dist-tiny", "8x64").eval()
    video = clip().requires_grad_()
    model(video).square().sum().backward()
    assert video.grad is not None
    assert (video.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_the_order_of_frames_counts(build: Build) -> None:
    model = build("dist-tiny", "8x64").eval()
    for part in (model.temporal, model.integration):
        for weight in part.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.2)
    # the frames that CLIP sees stay the same set
    shuffled = clip()[:, torch.tensor([4, 1, 0, 3, 6, 5, 2, 7])]
    with torch.no_grad():
        assert (model(clip()) - model(shuffled)).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_any_number_of_frames(build: Build, frames: int) -> None:
    model = build("dist-tiny", f"{frames}x64")
    F.cross_entropy(model(clip(frames)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_training_keeps_of_the_encoder_only_what_the_feeds_read(build: Build) -> None:
    model = build("dist-tiny", "8x64", encoder_width=100, encoder_heads=4).train()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(clip(batch=1))
    activations = {t.untyped_storage().data_ptr() for t in saved if t.numel() == 4 * 17 * 100}
    assert len(activations) == len(model.feeds)
    assert not any(t.shape[-1] in (300, 400) for t in saved)


def test_only_what_is_beside_the_encoder_is_trained(build: Build) -> None:
    model = build("dist-tiny", "8x64")
    assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"encoder"}
    assert not any(p.requires_grad for p in model.encoder.parameters())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"integration_heads": 7}, "integration width 384 is not a multiple of 7 heads"),
        ({"integration_width": 6, "integration_heads": 2}, "integration width 6 is not a multiple of 4"),
        ({"temporal_stride": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_published_encoder_weights_load(build: Build, publish_clip: Build) -> None:
    published = publish_clip()
    model = build("dist-tiny", "8x64", pretrained=True, weights="hub/clip")
    assert model.weights == "hub/clip, temporal encoder and integration random"
    assert torch.equal(model.encoder.vit.blocks[3].mlp.fc2.weight, published.blocks[3].mlp.fc2.weight)
