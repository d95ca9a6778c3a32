from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchctl.errors import WeightsMissing
from benchctl.layers.frozen_encoder import FrozenEncoder
from benchctl.spec import Attention

CLIP = "vit_base_patch16_clip_quickgelu_224"
SIZES = {"embed_dim": 32, "num_heads": 2}


def encoder(resolution: int = 32, blocks: int = 3, attention: Attention = "sdpa", **changes: object) -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder(CLIP, resolution=resolution, blocks=blocks, attention=attention, **{**SIZES, **changes})


def timm_model(resolution: int = 32, **changes: object) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(CLIP, pretrained=False, img_size=resolution, depth=3, num_classes=7, **{**SIZES, **changes})
    return model


def images(resolution: int = 32) -> Tensor:
    return torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


def test_features_are_those_of_timm() -> None:
    ours = encoder(resolution=48)
    reference = timm_model(resolution=48).eval()
    reference.load_state_dict(ours.vit.state_dict(), strict=False)
    expected = reference.forward_intermediates(images(48), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)
    found = list(ours.features(images(48)))
    assert len(found) == len(expected) == 3
    for tokens, (patches, prefix) in zip(found, expected):
        torch.testing.assert_close(tokens, torch.cat([prefix, patches], dim=1))


def test_every_picks_blocks() -> None:
    model = encoder(blocks=4)
    after_each = list(model.features(images()))
    every_second = list(model.features(images(), every=2))
    assert [torch.equal(a, b) for a, b in zip(every_second, (after_each[1], after_each[3]), strict=True)] == [True, True]


@pytest.mark.parametrize("attention", ["eager", "math", "flash"])
def test_backends_agree(attention: Attention) -> None:
    for a, b in zip(encoder().features(images()), encoder(attention=attention).features(images()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_eager_calls_no_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("fused attention was called")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    list(encoder(attention="eager").features(images()))
    with pytest.raises(AssertionError, match="fused attention"):
        list(encoder(attention="sdpa").features(images()))


def test_stays_frozen_and_in_evaluation_mode() -> None:
    parent = nn.ModuleList([encoder(proj_drop_rate=0.5)]).train()
    model = parent[0]
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())
    torch.testing.assert_close(list(model.features(images())), list(model.features(images())), rtol=0, atol=0)


def test_features_keep_nothing_for_a_backward_pass() -> None:
    saved: list[Tensor] = []
    model = encoder()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        features = list(model.features(images().requires_grad_()))
        assert torch.is_grad_enabled()
    assert saved == []
    assert not any(f.requires_grad for f in features)


def test_a_reader_that_builds_a_graph_between_blocks_may() -> None:
    scale = torch.ones((), requires_grad=True)
    total = torch.zeros(())
    for tokens in encoder().features(images()):
        total = total + (scale * tokens).sum()
    total.backward()
    assert scale.grad is not None


def test_gradients_pass_through_embed_and_blocks() -> None:
    model = encoder()
    picture = images().requires_grad_()
    tokens = model.embed(picture)
    for block in model.blocks:
        tokens = block(tokens)
    tokens.sum().backward()
    assert picture.grad is not None
    assert all(p.grad is None for p in model.parameters())


def test_nothing_unused_is_built() -> None:
    model = encoder(blocks=2)
    assert len(model.blocks) == 2
    assert not any(name.startswith(("head", "norm.", "fc_norm")) for name, _ in model.vit.named_parameters())
    assert (model.width, model.prefix_tokens) == (32, 1)


def save(model: nn.Module, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(root))
    (root / "hub" / "vit").mkdir(parents=True)
    save_file(model.state_dict(), root / "hub" / "vit" / "model.safetensors")
    return "hub/vit"


def test_published_weights_load_without_their_unused_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm_model()
    model = encoder(blocks=2)
    assert model.weights == "random"
    model.load(save(published, tmp_path, monkeypatch))
    assert model.weights == "hub/vit"
    own = model.vit.state_dict()
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in own.items())


def test_published_position_embeddings_are_resampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm_model(resolution=32)
    with torch.no_grad():
        published.pos_embed.fill_(0.25)
    model = encoder(resolution=80)
    model.load(save(published, tmp_path, monkeypatch))
    assert model.vit.pos_embed.shape == (1, 1 + 25, 32)
    torch.testing.assert_close(model.vit.pos_embed, torch.full_like(model.vit.pos_embed, 0.25))


def test_weights_of_another_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsMissing, match="does not fit"):
        encoder(embed_dim=64).load(save(timm_model(), tmp_path, monkeypatch))
