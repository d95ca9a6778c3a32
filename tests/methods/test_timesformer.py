from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchctl.errors import WeightsMissing
from benchctl.methods.timesformer import resize_position_embedding

Build = Callable[..., nn.Module]


def test_the_library_still_writes_attention_out() -> None:
    """The day it does not, ATTENTION can offer more than eager."""
    from transformers.models.timesformer import modeling_timesformer

    assert not modeling_timesformer.TimesformerPreTrainedModel._supports_sdpa
    assert "ALL_ATTENTION_FUNCTIONS" not in inspect.getsource(modeling_timesformer)


def test_frames_attend_to_each_other_at_every_shape(build: Build) -> None:
    """The library's layers take the frame count from the configuration: with a wrong one, patches would be mixed up silently."""
    for shape in ("4x32", "6x48"):
        model = build("timesformer-tiny", shape).eval()
        frames, side = (int(n) for n in shape.split("x"))
        clip = torch.randn(1, frames, 3, side, side)
        changed = clip.clone()
        changed[:, 2, :, :16, :16] += 1
        layer = model.video.timesformer.encoder.layer[0]
        seen = []
        layer.temporal_attention.register_forward_hook(lambda _module, _args, output, seen=seen: seen.append(output[0].detach()))
        model(clip), model(changed)
        differs = (seen[0] != seen[1]).flatten(1).any(dim=1)
        assert seen[0].shape[:2] == ((side // 16) ** 2, frames)
        assert differs.tolist() == [True] + [False] * (len(differs) - 1)


def test_resizing_by_nearest_neighbour() -> None:
    token = torch.tensor([[[9.0]]])
    patches = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    resized = resize_position_embedding(torch.cat([token, patches], dim=1), 4)
    assert resized.flatten().tolist() == [9, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]


@pytest.mark.parametrize("tokens", [1, 7])
def test_resizing_leaves_what_is_no_square_alone(tokens: int) -> None:
    embedding = torch.randn(1, tokens, 3)
    assert torch.equal(resize_position_embedding(embedding, 4), embedding)


def test_a_file_of_another_model_is_refused(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "hub" / "tsf").mkdir(parents=True)
    save_file({"timesformer.embeddings.time_embeddings": torch.zeros(3)}, tmp_path / "hub" / "tsf" / "model.safetensors")
    with pytest.raises(WeightsMissing, match="does not fit"):
        build("timesformer-tiny", "8x64", pretrained=True, weights="hub/tsf")


def test_published_weights_load_at_another_shape(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = build("timesformer-tiny", "8x64", classes=5, seed=1)
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    (tmp_path / "hub" / "tsf").mkdir(parents=True)
    with torch.no_grad():
        published.video.timesformer.embeddings.time_embeddings.normal_()
    save_file(published.video.state_dict(), tmp_path / "hub" / "tsf" / "model.safetensors")

    same = build("timesformer-tiny", "8x64", classes=5, pretrained=True, weights="hub/tsf").eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(same(clip), published.eval()(clip), rtol=0, atol=0)
    assert same.weights == "hub/tsf"

    other = build("timesformer-tiny", "16x96", classes=7, pretrained=True, weights="hub/tsf")
    assert other.weights == "hub/tsf, classifier random (7 classes, published 5)"
    ours, theirs = other.video.timesformer.embeddings, published.video.timesformer.embeddings
    assert torch.equal(ours.time_embeddings[:, ::2], theirs.time_embeddings)
    assert torch.equal(ours.time_embeddings[:, 1::2], theirs.time_embeddings)
    assert torch.equal(ours.position_embeddings, resize_position_embedding(theirs.position_embeddings, 6))
