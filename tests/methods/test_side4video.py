from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchctl.methods.side4video import Config

Build = Callable[..., nn.Module]


def test_forward_is_the_ladder(build: Build) -> None:
    """Against the ladder written out: encoder first, all its tokens kept, then block after block."""
    model = build("side4video-tiny", "8x64").eval()
    clip = torch.randn(2, 8, 3, 64, 64)
    with torch.no_grad():
        tokens = model.video.encoder.embed(clip.flatten(0, 1))
        kept = []
        for number in range(4):
            tokens = model.video.encoder.block(number, tokens)
            kept.append(tokens.view(2, 8, 17, 96))
        network = model.video.side
        side = network.tokenizer(clip)
        for i in range(2):
            fed = network.feeds[i](kept[2 * i + 1])
            side = network.blocks[i](0.5 * side + 0.5 * fed[:, :, 1:], fed[:, :, 0], network.position)
        expected = model.classifier(network.norm(side).mean((1, 2)))
        torch.testing.assert_close(model(clip), expected)


def test_only_the_side_network_is_trained(build: Build) -> None:
    model = build("side4video-tiny", "8x64")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("video.encoder.")}


def test_training_keeps_of_the_encoder_only_what_the_feeds_read(build: Build) -> None:
    """Encoder tokens are 100 wide here and nothing else is: of them, LayerNorm's input and output are kept, and no more."""
    model = build("side4video-tiny", "8x64", encoder_width=100, encoder_heads=4).train()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(torch.randn(1, 8, 3, 64, 64))
    activations = {t.untyped_storage().data_ptr(): t for t in saved if t.numel() == 8 * 17 * 100}
    assert len(activations) == 2 * len(model.video.side.feeds)
    assert not any(t.shape[-1] in (300, 400) for t in saved)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"side_layers": 5}, "cannot be shared evenly"),
        ({"side_heads": 7}, "width 320 is not a multiple of 7 heads"),
        ({"encoder_heads": 7}, "width 768 is not a multiple of 7 heads"),
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_published_encoder_weights_load(build: Build, publish_clip: Build) -> None:
    published = publish_clip()
    model = build("side4video-tiny", "8x64", pretrained=True, weights="hub/clip")
    assert model.weights == "hub/clip, side network random"
    assert torch.equal(model.video.encoder.vit.blocks[3].mlp.fc2.weight, published.blocks[3].mlp.fc2.weight)
