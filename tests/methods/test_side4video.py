from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchctl.methods.side4video import Config

Build = Callable[..., nn.Module]


def test_forward_is_the_ladder(build: Build) -> None:
    """Against the ladder written out: encoder first, all its tokens kept, then block after block."""
    model = build("side4video-tiny", "8x64").eval()
    clip = torch.randn(2, 8, 3, 64, 64)
    with torch.no_grad():
        tokens = model.encoder.embed(clip.flatten(0, 1))
        kept = []
        for block in model.encoder.blocks:
            tokens = block(tokens)
            kept.append(tokens.view(2, 8, 17, 96))
        side = model.tokenizer(clip)
        for i in range(2):
            fed = model.feeds[i](kept[2 * i + 1])
            side = model.blocks[i](0.5 * side + 0.5 * fed[:, :, 1:], fed[:, :, 0], model.position)
        expected = model.classifier(model.norm(side).mean((1, 2)))
        torch.testing.assert_close(model(clip), expected)


def test_only_the_side_network_is_trained(build: Build) -> None:
    model = build("side4video-tiny", "8x64")
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert trained == {"position", "tokenizer", "feeds", "blocks", "norm", "classifier"}
    assert frozen == {"encoder"}


def test_training_keeps_of_the_encoder_only_what_the_feeds_read(build: Build) -> None:
    """Encoder tokens are 100 wide here and nothing else is: of them, LayerNorm's input and output are kept, and no more."""
    model = build("side4video-tiny", "8x64", encoder_width=100, encoder_heads=4).train()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(torch.randn(1, 8, 3, 64, 64))
    activations = {t.untyped_storage().data_ptr(): t for t in saved if t.numel() == 8 * 17 * 100}
    assert len(activations) == 2 * len(model.feeds)
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


@pytest.mark.parametrize("preset", ["side4video-b", "side4video-l"])
def test_sizes_are_those_of_the_named_encoder(preset: str) -> None:
    from benchctl import lookup

    config = Config(**lookup.entry("method", preset).value)
    with torch.device("meta"):
        vit = timm.create_model(config.encoder)
    heads = vit.blocks[0].attn.num_heads
    assert (vit.embed_dim, len(vit.blocks), heads) == (config.encoder_width, config.encoder_layers, config.encoder_heads)
    assert vit.patch_embed.patch_size == (config.patch_size, config.patch_size)
    assert timm.get_pretrained_cfg(f"{config.encoder}.openai").hf_hub_id == config.weights


@pytest.mark.parametrize("preset", ["side4video-b"])
def test_normalisation_is_that_of_the_weights(preset: str) -> None:
    from benchctl.methods import side4video

    published = timm.get_pretrained_cfg(f"{Config().encoder}.openai")
    assert (published.mean, published.std) == (side4video.MEAN, side4video.STD)


def test_published_encoder_weights_load(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm.create_model(Config().encoder, embed_dim=96, num_heads=3, depth=4, img_size=64, num_classes=512)
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "hub" / "clip").mkdir(parents=True)
    save_file(published.state_dict(), tmp_path / "hub" / "clip" / "model.safetensors")
    model = build("side4video-tiny", "8x64", pretrained=True, weights="hub/clip")
    assert model.weights == "hub/clip, side network random"
    assert torch.equal(model.encoder.vit.blocks[3].mlp.fc2.weight, published.blocks[3].mlp.fc2.weight)
