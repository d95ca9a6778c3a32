"""Products in a window against their definition: loops over positions and offsets, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchctl.errors import ShapeError
from benchctl.layers import window
from benchctl.layers.window import affinity, aggregate

OUTSIDE = 0.25


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def neighbour(x: Tensor, row: int, column: int) -> Tensor:
    """(H, W, C): the token at a place, or the one that stands outside."""
    H, W, C = x.shape
    return x[row, column] if 0 <= row < H and 0 <= column < W else torch.full((C,), OUTSIDE, dtype=x.dtype)


def places(x: Tensor, side: int) -> list[tuple[int, int, int, int, int]]:
    N, H, W, _ = x.shape
    return list(itertools.product(range(N), range(H), range(W), range(side), range(side)))


def defined_affinity(query: Tensor, key: Tensor, side: int) -> Tensor:
    found = [query[n, x, y] @ neighbour(key[n], x + i - side // 2, y + j - side // 2) for n, x, y, i, j in places(query, side)]
    return torch.stack(found).view(*query.shape[:3], side, side)


def defined_aggregate(weight: Tensor, value: Tensor) -> Tensor:
    N, H, W, S, _ = weight.shape
    sums = [
        sum(weight[n, x, y, i, j] * neighbour(value[n], x + i - S // 2, y + j - S // 2) for i in range(S) for j in range(S))
        for n, x, y in itertools.product(range(N), range(H), range(W))
    ]
    return torch.stack([torch.as_tensor(s) for s in sums]).view(value.shape)


@pytest.fixture(params=[0, 8, 1000], ids=["bands", "as-chosen", "whole-frames"], autouse=True)
def _cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a frame is cut, the result is the same."""
    monkeypatch.setattr(window, "WHOLE_FRAME_WINDOWS", request.param)


fixed = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
shapes = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 5), st.integers(1, 3))
sides = st.integers(0, 3).map(lambda n: 2 * n + 1)


def compare(found: Callable[..., Tensor], defined: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Values, and gradients of all inputs."""
    results = []
    for function in (found, defined):
        given = [x.clone().requires_grad_() for x in inputs]
        result = function(*given)
        (result * drawn(*result.shape, seed=9)).sum().backward()
        results.append([result, *(x.grad for x in given)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@settings(max_examples=12, **fixed)
@given(shape=shapes, side=sides, seed=st.integers(0, 1000))
def test_affinity_is_its_definition(shape: tuple[int, ...], side: int, seed: int) -> None:
    """Also where the window is larger than the frame."""
    query, key = drawn(*shape, seed=seed), drawn(*shape, seed=seed + 1)
    compare(lambda q, k: affinity(q, k, side, outside=OUTSIDE), lambda q, k: defined_affinity(q, k, side), query, key)


@settings(max_examples=12, **fixed)
@given(shape=shapes, side=sides, seed=st.integers(0, 1000))
def test_aggregation_is_its_definition(shape: tuple[int, ...], side: int, seed: int) -> None:
    weight, value = drawn(*shape[:3], side, side, seed=seed), drawn(*shape, seed=seed + 1)
    compare(lambda w, v: aggregate(w, v, outside=OUTSIDE), defined_aggregate, weight, value)


def test_gradients_are_those_of_finite_differences() -> None:
    query, key, weight = (drawn(1, 5, 3, n, seed=n).requires_grad_() for n in (2, 2, 9))
    assert torch.autograd.gradcheck(lambda q, k: affinity(q, k, 3, outside=OUTSIDE), (query, key))
    assert torch.autograd.gradcheck(lambda w, v: aggregate(w.unflatten(-1, (3, 3)), v, outside=OUTSIDE), (weight, key))


def test_nothing_stands_outside_unless_it_is_said() -> None:
    x = drawn(1, 2, 2, 3)
    assert affinity(x, x, 3)[0, 0, 0, 0].abs().max() == 0
    assert torch.equal(aggregate(affinity(x, x, 1), x), x * x.square().sum(-1, keepdim=True))


def test_inputs_need_not_be_contiguous() -> None:
    query, key = drawn(3, 4, 5, 2).permute(3, 1, 2, 0), drawn(3, 4, 5, 2, seed=1).permute(3, 1, 2, 0)
    weight = affinity(query, key, 3)
    assert torch.equal(weight, affinity(query.contiguous(), key.contiguous(), 3))
    assert torch.equal(aggregate(weight.transpose(3, 4), key), aggregate(weight.transpose(3, 4).contiguous(), key.contiguous()))


def test_autocast_decides_the_precision() -> None:
    query, key = (drawn(1, 4, 4, 8, dtype=torch.float32, seed=n).requires_grad_() for n in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = affinity(query, key, 3, outside=1e-6)
        found = aggregate(weight.softmax(-1), key, outside=1e-6)
    assert weight.dtype == found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert query.grad is not None
    assert key.grad is not None
    assert query.grad.dtype == key.grad.dtype == torch.float32


def test_only_the_inputs_are_kept_for_the_gradient() -> None:
    """Nothing that grows with the window times the width, and no product of whole frames."""
    query, key, weight = (drawn(2, 8, 8, n, seed=n).requires_grad_() for n in (32, 32, 25))
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        held = affinity(query, key, 5), aggregate(weight.unflatten(-1, (5, 5)), key)
    assert sum(saved.values()) == query.nbytes + key.nbytes + weight.nbytes
    assert all(result.requires_grad for result in held)


@pytest.mark.parametrize(("side", "said"), [(4, "side S is 4.*use 3 or 5"), (0, "S is 0"), (-1, "S is -1")])
def test_a_window_without_a_centre_is_refused(side: int, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        affinity(drawn(1, 2, 2, 2), drawn(1, 2, 2, 2), side)
