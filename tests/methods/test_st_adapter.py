from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchctl.methods.st_adapter import Adapter, Config

Build = Callable[..., nn.Module]


def clip(frames: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def moved(model: nn.Module, scale: float = 5.0) -> nn.Module:
    """The model with adapters that are no longer the identity."""
    for module in model.modules():
        if isinstance(module, Adapter):
            nn.init.normal_(module.conv.weight, std=scale)
    return model


@pytest.mark.parametrize(
    ("preset", "options", "gmacs", "trainable"),
    [
        ("st-adapter-b", {}, 151.62, 7_243_950),
        ("st-adapter-b", {"adapters": ["attention", "mlp"]}, 162.75, 14_354_094),
        ("st-adapter-l", {}, 686.81, 19_123_374),
    ],
)
def test_costs(build: Build, preset: str, options: dict[str, Any], gmacs: float, trainable: int) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(preset, "8x224", classes=174, **options)
        model(torch.empty(1, 8, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.0005)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def test_adapter_is_its_definition() -> None:
    """Frame by frame and patch by patch, with a weighted sum over the neighbouring frames, in float64."""
    torch.manual_seed(0)
    adapter = Adapter(width=6, bottleneck=4).double()
    nn.init.normal_(adapter.conv.weight)
    nn.init.normal_(adapter.conv.bias)
    tokens = torch.randn(2, 5, 1 + 9, 6, dtype=torch.float64)
    expected = tokens.clone()
    for t in range(5):
        for p in range(1, 10):
            between = adapter.conv.bias.clone()
            for step in (-1, 0, 1):
                if 0 <= t + step < 5:
                    between = between + adapter.conv.weight[:, 0, 1 + step, 0] * adapter.down(tokens[:, t + step, p])
            expected[:, t, p] += adapter.up(between)
    torch.testing.assert_close(adapter(tokens, 1), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("encoder", ["clip-b16", "dino-b16", "eva-clip-b16"])
@pytest.mark.parametrize("adapters", [("attention",), ("mlp",), ("attention", "mlp")])
def test_starts_as_the_frozen_encoder(build: Build, adapters: tuple[str, ...], encoder: str) -> None:
    model = build("st-adapter-tiny", "8x64", adapters=adapters, encoder=encoder).eval()
    with torch.no_grad():
        *_, last = model.encoder.features(clip().flatten(0, 1))
        pooled = model.encoder.norm(last[:, 0].view(2, 8, 96).mean(dim=1))
        torch.testing.assert_close(model(clip()), model.classifier(pooled))


def test_forward_is_the_adapted_transformer(build: Build) -> None:
    """Blocks written out with timm's parts, adapters before attention and before the MLP from block 1 on."""
    model = moved(build("st-adapter-tiny", "8x64", adapters=["attention", "mlp"], first_block=1)).eval()
    with torch.no_grad():
        x = model.encoder.embed(clip().flatten(0, 1))
        for index, block in enumerate(model.encoder.vit.blocks):
            for where, part, norm in (("attention", block.attn, block.norm1), ("mlp", block.mlp, block.norm2)):
                if index >= 1:
                    adapter = model.adapters[where][index - 1]
                    x = torch.cat([x[:, :1], adapter(x.view(2, 8, 17, 96), 1)[:, :, 1:].flatten(0, 1)], dim=1)
                x = x + part(norm(x))
        expected = model.classifier(model.encoder.vit.norm(x[:, 0].view(2, 8, 96).mean(1)))
        torch.testing.assert_close(model(clip()), expected)


def test_the_order_of_frames_counts_once_adapters_have_moved(build: Build) -> None:
    model = build("st-adapter-tiny", "8x64").eval()
    shuffled = clip()[:, torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])]
    with torch.no_grad():
        torch.testing.assert_close(model(clip()), model(shuffled))
        moved(model)
        assert (model(clip()) - model(shuffled)).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 5])
def test_any_number_of_frames(build: Build, frames: int) -> None:
    model = moved(build("st-adapter-tiny", f"{frames}x64"))
    F.cross_entropy(model(clip(frames)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_only_adapters_and_classifier_are_trained(build: Build) -> None:
    model = build("st-adapter-tiny", "8x64")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"adapters", "classifier"}


def test_frozen_layers_keep_no_inputs(build: Build) -> None:
    """The input of a linear layer is kept for the gradient of its weights; a frozen one has none."""
    model = moved(build("st-adapter-tiny", "8x64")).train()
    inputs: set[int] = set()
    kept: list[Tensor] = []
    for block in model.encoder.vit.blocks:
        for linear in (block.attn.qkv, block.mlp.fc1, block.mlp.fc2):
            linear.register_forward_pre_hook(lambda _, given: inputs.add(given[0].untyped_storage().data_ptr()) or kept.append(given[0]))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(clip())
    assert len(inputs) == 12
    assert not inputs & {t.untyped_storage().data_ptr() for t in saved}
    # what is trained does keep its inputs: the check above can tell
    assert sum(t.shape[-1] == 48 for t in saved) > 0


def test_blocks_before_the_first_adapter_have_no_graph(build: Build) -> None:
    model = build("st-adapter-tiny", "8x64", first_block=2).train()
    with_graph: list[bool] = []
    for block in model.encoder.vit.blocks:
        block.mlp.register_forward_hook(lambda _, _given, output: with_graph.append(output.requires_grad))
    model(clip())
    assert with_graph == [False, False, True, True]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"first_block": 12}, "first_block 12 is beyond the last of 12 encoder layers"),
        ({"adapters": ["mlp", "mlp"]}, "adapters names one place twice"),
        ({"adapters": []}, "at least 1 item"),
        ({"adapters": ["head"]}, "'attention' or 'mlp'"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**wrong)


def test_published_encoder_weights_load(build: Build, publish_clip: Build) -> None:
    published = publish_clip()
    model = build("st-adapter-tiny", "8x64", pretrained=True, weights="hub/clip")
    assert model.weights == "hub/clip, adapters and classifier random"
    # the final normalisation is CLIP's too
    assert torch.equal(model.encoder.vit.norm.weight, published.norm.weight)
