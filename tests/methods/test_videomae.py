from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchctl.layers.videomae import sinusoid_table

Build = Callable[..., nn.Module]


def library_model(frames: int, side: int) -> nn.Module:
    """`transformers`' own model of videomae-tiny's size, built for the shape by its configuration."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 384, "num_labels": 4}
    model: nn.Module = VideoMAEForVideoClassification(VideoMAEConfig(image_size=side, num_frames=frames, **sizes))
    return model


@pytest.mark.parametrize(("positions", "width"), [(1, 2), (17, 8), (40, 96)])
def test_position_table_is_the_librarys(positions: int, width: int) -> None:
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    torch.testing.assert_close(sinusoid_table(positions, width), get_sinusoid_encoding_table(positions, width), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", ["8x64", "4x96"])
def test_the_model_is_the_librarys(build: Build, shape: str) -> None:
    frames, side = (int(n) for n in shape.split("x"))
    ours, theirs = build("videomae-tiny", shape).eval(), library_model(frames, side).eval()
    theirs.load_state_dict(ours.video.state_dict())
    clip = torch.randn(2, frames, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip).logits)


def test_positions_matter(build: Build) -> None:
    model = build("videomae-tiny", "8x64").eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(1)), atol=1e-4)


def test_the_position_table_moves_with_the_model_and_is_not_saved(build: Build) -> None:
    model = build("videomae-tiny", "8x64").to("meta")
    assert model.video.videomae.embeddings.position_embeddings.is_meta
    assert not any("position" in name for name in model.state_dict())


def test_one_frame_with_tubelet_one(build: Build) -> None:
    assert build("videomae-tiny", "1x64", tubelet_size=1)(torch.randn(2, 1, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("authors_names", [True, False])
def test_published_weights_load(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authors_names: bool) -> None:
    published = build("videomae-tiny", "8x64", classes=4, seed=1).eval()
    with torch.no_grad():
        for name, p in published.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    state = published.video.state_dict()
    if authors_names:
        state = {n.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): tensor for n, tensor in state.items()}
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "hub" / "mae").mkdir(parents=True)
    save_file(state, tmp_path / "hub" / "mae" / "model.safetensors")
    clip = torch.randn(1, 8, 3, 64, 64)
    same = build("videomae-tiny", "8x64", pretrained=True, weights="hub/mae").eval()
    with torch.no_grad():
        assert torch.equal(same(clip), published(clip))
    assert build("videomae-tiny", "4x32", classes=9, pretrained=True, weights="hub/mae").weights.startswith("hub/mae, classifier random")
