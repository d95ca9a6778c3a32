"""Space-time self-similarity against its definition: loops over positions and offsets, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchctl.errors import ShapeError
from benchctl.layers.stss import EPSILON, SelfSimilarity, Strategy, Window, chosen, stss

STRATEGIES: list[Strategy] = ["dense", "rows"]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm().clamp(min=EPSILON)) @ (b / b.norm().clamp(min=EPSILON))


def defined(features: Tensor, window: Window) -> Tensor:
    """Equation 2, one offset after another."""
    B, T, H, W, _ = features.shape
    result = []
    offsets = list(itertools.product(*(range(-(side // 2), side // 2 + 1) for side in window)))
    for b, t, h, w in itertools.product(range(B), range(T), range(H), range(W)):
        for lag, u, v in offsets:
            inside = 0 <= t + lag < T and 0 <= h + u < H and 0 <= w + v < W
            result.append(cosine(features[b, t, h, w], features[b, t + lag, h + u, w + v]) if inside else features.new_zeros(()))
    return torch.stack(result).view(B, T, H, W, *window)


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


odd = st.integers(0, 3).map(lambda n: 2 * n + 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    window=st.tuples(odd, odd, odd),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition(strategy: Strategy, shape: tuple[int, ...], window: Window, seed: int) -> None:
    """Also where the window is larger than the clip, and with one frame."""
    features = drawn(*shape, seed=seed)
    torch.testing.assert_close(stss(features, window, strategy=strategy), defined(features, window), atol=1e-10, rtol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=10, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    window=st.tuples(odd, odd, odd),
    seed=st.integers(0, 1000),
)
def test_its_gradient_is_that_of_the_definition(strategy: Strategy, shape: tuple[int, ...], window: Window, seed: int) -> None:
    found, expected = (drawn(*shape, seed=seed).requires_grad_() for _ in range(2))
    weight = drawn(*shape[:-1], *window, seed=seed + 1)
    (stss(found, window, strategy=strategy) * weight).sum().backward()
    (defined(expected, window) * weight).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_its_gradient_is_that_of_finite_differences(strategy: Strategy) -> None:
    features = drawn(1, 3, 2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stss(x, (3, 3, 5), strategy=strategy), (features,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_precision_is_near(strategy: Strategy, dtype: torch.dtype) -> None:
    """Long vectors too, whose squares overflow in fp16: lengths are taken in fp32."""
    features = (100 * drawn(1, 3, 4, 5, 64)).to(dtype).requires_grad_()
    found = stss(features, (3, 5, 5), strategy=strategy)
    assert found.dtype == dtype
    exact = features.detach().double().requires_grad_()
    expected = defined(exact, (3, 5, 5))
    torch.testing.assert_close(found.double(), expected.detach(), atol=4 * torch.finfo(dtype).eps, rtol=0)
    weight = drawn(*found.shape, seed=1)
    (found * weight.to(dtype)).sum().backward()
    (expected * weight).sum().backward()
    assert features.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(features.grad.double(), exact.grad, atol=30 * torch.finfo(dtype).eps * float(exact.grad.abs().max()), rtol=0)


def test_autocast_decides_the_precision_of_the_products() -> None:
    features = drawn(1, 2, 3, 3, 8, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stss(features, (3, 3, 3))
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_similar_to_nothing(strategy: Strategy) -> None:
    features = drawn(1, 2, 3, 3, 4)
    features[0, 1, 1, 1] = 0
    features.requires_grad_()
    found = stss(features, (3, 3, 3), strategy=strategy)
    assert found[0, 1, 1, 1].abs().max() == 0
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_displacement_peaks_where_it_leads(strategy: Strategy) -> None:
    """Frames that move one to the right and two down each time: the offset of the next frame's peak says so."""
    first = drawn(9, 9, 16)
    clip = torch.stack([first.roll((2 * t, t), (0, 1)) for t in range(3)])[None]
    found = stss(clip, (3, 5, 5), strategy=strategy)[0, 1, 4, 4]
    peaks = [divmod(int(found[lag].argmax()), 5) for lag in range(3)]
    assert [(u - 2, v - 2) for u, v in peaks] == [(-2, -1), (0, 0), (2, 1)]


@settings(max_examples=20, deadline=None)
@given(window=st.tuples(odd, odd, odd), seed=st.integers(0, 1000))
def test_it_is_symmetric(window: Window, seed: int) -> None:
    """What p says about q, q says about p at the opposite offset."""
    found = stss(drawn(1, 3, 4, 4, 5, seed=seed), window)[0]
    L, U, V = (side // 2 for side in window)
    for lag, u, v in itertools.product(range(-L, L + 1), range(-U, U + 1), range(-V, V + 1)):
        t, h, w = (max(0, -n) for n in (lag, u, v))
        if t + lag < 3 and h + u < 4 and w + v < 4 and max(t, h - 1, w - 1) < 3:
            there = found[t, h, w, L + lag, U + u, V + v]
            back = found[t + lag, h + u, w + v, L - lag, U - u, V - v]
            assert math.isclose(there, back, abs_tol=1e-12)


def test_scale_does_not_matter() -> None:
    features = drawn(1, 2, 3, 3, 4)
    torch.testing.assert_close(stss(7 * features, (3, 3, 3)), stss(features, (3, 3, 3)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clips_of_a_batch_do_not_see_each_other(strategy: Strategy) -> None:
    features = drawn(3, 2, 3, 3, 4)
    together = stss(features, (5, 3, 3), strategy=strategy)
    alone = torch.cat([stss(clip[None], (5, 3, 3), strategy=strategy) for clip in features])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


def test_the_strategy_follows_the_grid() -> None:
    assert [chosen(n, n, (5, 9, 9)) for n in (14, 16, 20, 21, 64)] == ["dense", "dense", "dense", "rows", "rows"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_units_are_kept_for_the_gradient(strategy: Strategy) -> None:
    """One copy of the features, and nothing that grows with the window."""
    features = drawn(1, 4, 6, 6, 32).requires_grad_()
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        held = stss(features, (5, 5, 5), strategy=strategy)
    # the input, its lengths, the units with the empty ones between them (4 + 2 frames, 6 + 2 rows)
    assert sum(saved.values()) < 5 * features.nbytes
    assert held.requires_grad


@pytest.mark.parametrize(("window", "said"), [((5, 8, 9), "side U is 8.*use 7 or 9"), ((0, 9, 9), "L is 0"), ((5, 9, -1), "V is -1")])
def test_a_window_without_a_centre_is_refused(window: Window, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        stss(drawn(1, 1, 2, 2, 2), window)
    with pytest.raises(ShapeError, match=said):
        SelfSimilarity(window)


def test_the_module_is_the_function() -> None:
    features = drawn(1, 2, 3, 3, 4)
    assert torch.equal(SelfSimilarity((3, 3, 5))(features), stss(features, (3, 3, 5)))
