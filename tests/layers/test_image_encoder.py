from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchctl.errors import WeightsMissing
from benchctl.layers.image_encoder import ENCODERS, EncoderConfig, EncoderName, ImageEncoder
from benchctl.spec import Attention, ModelSpec
from benchctl.vocabulary import ClipShape

SIZES = {"encoder_width": 32, "encoder_heads": 2, "encoder_layers": 3}


def encoder(
    resolution: int = 32, attention: Attention = "sdpa", *, frozen: bool = True, final_norm: bool = False, **changes: object
) -> ImageEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(**{**SIZES, **changes})
    spec = ModelSpec(config, ClipShape(frames=1, resolution=resolution), num_classes=2, attention=attention)
    return ImageEncoder(config, spec, frozen=frozen, final_norm=final_norm)


def timm_model(resolution: int = 32, name: EncoderName = "clip-b16") -> nn.Module:
    import timm

    source = ENCODERS[name]
    sizes = {"embed_dim": 32, "num_heads": 2, "depth": 3, "patch_size": source.patch_size}
    model: nn.Module = timm.create_model(source.architecture, pretrained=False, img_size=resolution, num_classes=7, **sizes)
    return model


def images(resolution: int = 32) -> Tensor:
    return torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_features_are_those_of_timm(name: EncoderName) -> None:
    resolution = 3 * ENCODERS[name].patch_size
    ours = encoder(resolution, encoder=name)
    reference = timm_model(resolution, name).eval()
    reference.load_state_dict(ours.vit.state_dict(), strict=False)
    expected = reference.forward_intermediates(images(resolution), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)
    found = list(ours.features(images(resolution)))
    assert len(found) == len(expected) == 3
    for tokens, (patches, prefix) in zip(found, expected):
        torch.testing.assert_close(tokens, torch.cat([prefix, patches], dim=1))


def test_every_picks_blocks() -> None:
    model = encoder(encoder_layers=4)
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
    parent = nn.ModuleList([encoder()]).train()
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
    for index in range(len(model)):
        tokens = model.block(index, tokens)
    tokens.sum().backward()
    assert picture.grad is not None
    assert all(p.grad is None for p in model.parameters())


def test_nothing_unused_is_built() -> None:
    model = encoder(encoder_layers=2)
    assert len(model) == 2
    assert not any(name.startswith(("head", "norm.", "fc_norm")) for name, _ in model.vit.named_parameters())
    assert (model.width, model.prefix_tokens, model.grid) == (32, 1, 2)


def save(model: nn.Module, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(root))
    (root / "hub" / "vit").mkdir(parents=True)
    save_file(model.state_dict(), root / "hub" / "vit" / "model.safetensors")
    return "hub/vit"


def test_published_weights_load_without_their_unused_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm_model()
    model = encoder(encoder_layers=2)
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
        encoder(encoder_width=64).load(save(timm_model(), tmp_path, monkeypatch))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_block_is_its_parts(name: EncoderName) -> None:
    model = encoder(2 * ENCODERS[name].patch_size, encoder=name)
    tokens = model.embed(images(2 * ENCODERS[name].patch_size))
    before_attention, before_mlp = model.norms(1)
    parts = tokens + model.attention(1, before_attention(tokens))
    parts = parts + model.mlp(1, before_mlp(parts))
    torch.testing.assert_close(parts, model.block(1, tokens))


def test_rotary_positions_can_be_left_out() -> None:
    model = encoder(28, encoder="eva-clip-l14")
    tokens = model.norms(0)[0](model.embed(images(28)))
    assert not torch.equal(model.attention(0, tokens), model.attention(0, tokens, placed=False))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_loads_its_own_layout(name: EncoderName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm_model(2 * ENCODERS[name].patch_size, name)
    model = encoder(2 * ENCODERS[name].patch_size, encoder=name, final_norm=True)
    model.load(save(published, tmp_path, monkeypatch))
    own = model.vit.state_dict()
    assert all(torch.equal(tensor, published.state_dict()[key]) for key, tensor in own.items())
    assert "norm.weight" in own


def test_a_trained_encoder_trains() -> None:
    model = encoder(frozen=False, final_norm=True).train()
    assert model.training
    model.norm(model.block(0, model.embed(images()))).sum().backward()
    assert model.vit.patch_embed.proj.weight.grad is not None


def test_gradients_through_frozen_blocks_keep_no_inputs_of_their_products() -> None:
    """What a product with a frozen matrix needs for its gradient is the matrix alone."""

    def kept(frozen: bool) -> int:
        model = encoder(frozen=frozen)
        own = {p.data_ptr() for p in model.parameters()}
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tokens = model.embed(images()).detach().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            # held until it is counted: storage addresses are reused
            held = [tokens]
            for index in range(len(model)):
                held.append(model.block(index, held[-1]))
        return sum(saved.values())

    # of a block's inputs to products (4 C for attention and 8 C for the MLP, per token) none is kept
    assert kept(frozen=True) < 0.75 * kept(frozen=False)


def test_sizes_follow_the_encoder() -> None:
    large = EncoderConfig(encoder="clip-l14")
    assert (large.encoder_width, large.encoder_layers, large.encoder_heads, large.patch_size) == (1024, 24, 16, 14)
    assert large.weights == "timm/vit_large_patch14_clip_224.openai"
    assert EncoderConfig(encoder_layers=4).weights == "timm/vit_base_patch16_clip_224.openai"
    assert EncoderConfig(encoder_width=96, encoder_heads=3).weights is None
    assert EncoderConfig(encoder_width=96, encoder_heads=3, weights="me/mine").weights == "me/mine"
    assert EncoderConfig(encoder="dino-b16").statistics() == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_config_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of 5 heads"):
        EncoderConfig(encoder_heads=5)
    with pytest.raises(ValueError, match="'clip-b16'"):
        EncoderConfig(encoder="clip-b15")


@pytest.mark.parametrize("name", list(ENCODERS))
def test_sizes_and_statistics_are_timms(name: EncoderName) -> None:
    import timm

    source = ENCODERS[name]
    with torch.device("meta"):
        vit = timm.create_model(source.architecture)
    assert (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads) == (source.width, source.layers, source.heads)
    assert vit.patch_embed.patch_size == (source.patch_size, source.patch_size)
    tag = source.weights.rpartition(".")[2]
    published = timm.get_pretrained_cfg(f"{source.architecture}.{tag}")
    assert (published.hf_hub_id, published.mean, published.std) == (source.weights, source.mean, source.std)
