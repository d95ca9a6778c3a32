"""The MOSS module against its equations written out in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.multi_order_similarity import Fusion, MossShape, MultiOrderSelfSimilarity, SimilarityEncoder
from benchctl.layers.stss import Window, stss

B, T, H, W, C, D, K = 2, 3, 4, 5, 6, 4, 7
WINDOW: Window = (3, 3, 5)
SHAPE = MossShape(width=C, out_width=K, orders=(1, 2), windows=(WINDOW, WINDOW), channels=D, conv_blocks=2)


def module(shape: MossShape = SHAPE) -> MultiOrderSelfSimilarity:
    torch.manual_seed(0)
    made = MultiOrderSelfSimilarity(shape).double().eval()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return made


def features() -> Tensor:
    return torch.randn(B, T, H, W, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def encoded(encoder: SimilarityEncoder, similarity: Tensor) -> Tensor:
    """g, section 3.3, frame of the window after frame of the window."""
    per_offset = []
    for lag in range(similarity.shape[4]):
        x = encoder.embed(similarity[:, :, :, :, lag].flatten(4))
        frames = []
        for b, t in itertools.product(range(B), range(T)):
            image = x[b, t].permute(2, 0, 1)[None]
            for conv, norm, _ in zip(*[iter(encoder.fusion.refine)] * 3, strict=True):
                image = F.conv2d(image, conv.weight, padding=1)
                centred = (image - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
                image = F.gelu(centred * norm.weight[:, None, None] + norm.bias[:, None, None])
            frames.append(image[0].permute(1, 2, 0))
        per_offset.append(torch.stack(frames).view(B, T, H, W, D))
    return F.linear(torch.cat(per_offset, dim=-1), encoder.fusion.fuse.weight, encoder.fusion.fuse.bias)


def test_orders_are_the_recursion() -> None:
    """S(n) = f(g(S(n-1))), with an encoder of its own for each order."""
    moss = module(replace(SHAPE, orders=(1, 2, 3), windows=(WINDOW, (1, 3, 3), WINDOW)))
    base = features()
    with torch.no_grad():
        outputs = list(moss.each_order(features()))
        assert [output.order for output in outputs] == [1, 2, 3]
        for output, encoder, window in zip(outputs, moss.encoders, (WINDOW, (1, 3, 3), WINDOW), strict=True):
            similarity = stss(base, window)
            torch.testing.assert_close(output.similarity, similarity, atol=1e-10, rtol=0)
            base = encoded(encoder, similarity)
            torch.testing.assert_close(output.motion, base, atol=1e-10, rtol=0)


@pytest.mark.parametrize("orders", [(1,), (2,), (1, 3), (2, 3), (1, 2, 3, 4)])
def test_chosen_orders_are_summed(orders: tuple[int, ...]) -> None:
    moss = module(replace(SHAPE, orders=orders, windows=(WINDOW,) * max(orders)))
    with torch.no_grad():
        motions = {output.order: output.motion for output in moss.each_order(features())}
        given, first = moss(features())
        expected = sum(projection(motions[order]) for order, projection in zip(orders, moss.projections, strict=True))
    torch.testing.assert_close(given, expected)
    assert given.shape == (B, T, H, W, K)
    torch.testing.assert_close(first, motions[1])


def test_one_projection_is_the_same_for_every_order() -> None:
    moss = module(replace(SHAPE, one_projection=True))
    assert len(moss.projections) == 1
    with torch.no_grad():
        motions = [output.motion for output in moss.each_order(features())]
        given, _ = moss(features())
        weight = moss.projections[0].weight
        torch.testing.assert_close(given, sum(m @ weight.T for m in motions) + moss.projections[0].bias)


@pytest.mark.parametrize("fusion", ["addition", "conv", "mlp"])
def test_fusion_changes_the_second_order_alone(fusion: Fusion) -> None:
    plain, fused = module(), module(replace(SHAPE, fusion=fusion))
    fused.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        (first, second), (same, other) = (list(m.each_order(features())) for m in (plain, fused))
        torch.testing.assert_close(same.motion, first.motion)
        assert not torch.allclose(other.similarity, second.similarity)
        if fusion == "addition":
            torch.testing.assert_close(other.similarity, stss(features() + first.motion, WINDOW))
        else:
            assert fused.fusion is not None
            torch.testing.assert_close(other.similarity, stss(fused.fusion(features(), first.motion), WINDOW))


def test_the_first_order_hears_nothing_of_appearance() -> None:
    """A turn of all features in their space, which changes what things look like but not what is like what, changes nothing."""
    turn, _ = torch.linalg.qr(torch.randn(C, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    moss = module()
    with torch.no_grad():
        torch.testing.assert_close(moss(features() @ turn)[0], moss(features())[0])


def test_gradients_reach_everything() -> None:
    moss = module().train()
    given, _ = moss(features().requires_grad_())
    assert given is not None
    given.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in moss.parameters())
