"""Mamba against its recurrence written out channel by channel and state by state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchctl.layers.selective_scan import Mamba, package_installed, selective_scan


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def definition(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    result = torch.zeros_like(u)
    for b in range(u.shape[0]):
        for e in range(u.shape[2]):
            state = [torch.zeros((), dtype=u.dtype) for _ in range(A.shape[1])]
            for position in range(u.shape[1]):
                step, read = delta[b, position, e], u[b, position, e]
                state = [torch.exp(step * A[e, n]) * state[n] + step * B[b, position, n] * read for n in range(A.shape[1])]
                result[b, position, e] = sum(C[b, position, n] * state[n] for n in range(A.shape[1])) + D[e] * read
    return result


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_recurrence(length: int) -> None:
    u, delta = drawn(2, length, 3, seed=0), drawn(2, length, 3, seed=1).exp()
    A, B, C, D = -drawn(3, 4, seed=2).exp(), drawn(2, length, 4, seed=3), drawn(2, length, 4, seed=4), drawn(3, seed=5)
    torch.testing.assert_close(selective_scan(u, delta, A, B, C, D), definition(u, delta, A, B, C, D), atol=1e-12, rtol=1e-12)


def test_a_position_sees_those_up_to_it() -> None:
    torch.manual_seed(0)
    layer = Mamba(32).double()
    x = drawn(1, 6, 32, seed=0)
    changed = x.clone()
    changed[:, 3] += 1
    difference = (layer(changed) - layer(x)).abs().sum(-1)[0]
    assert (difference[:3] == 0).all()
    assert (difference[3:] > 0).all()


def test_it_has_the_parameters_of_the_package() -> None:
    """Names and shapes that `mamba-ssm` 2 documents for a width of 96, so that weights go both ways."""
    shapes = {name: tuple(p.shape) for name, p in Mamba(96).named_parameters()}
    assert shapes == {
        "A_log": (192, 16),
        "D": (192,),
        "in_proj.weight": (384, 96),
        "conv1d.weight": (192, 1, 4),
        "conv1d.bias": (192,),
        "x_proj.weight": (6 + 32, 192),
        "dt_proj.weight": (192, 6),
        "dt_proj.bias": (192,),
        "out_proj.weight": (96, 192),
    }


def test_steps_start_between_a_thousandth_and_a_tenth() -> None:
    torch.manual_seed(0)
    steps = torch.nn.functional.softplus(Mamba(64).dt_proj.bias)
    assert 0.001 <= float(steps.min().detach()) < 0.003
    assert 0.05 < float(steps.max().detach()) <= 0.1


@pytest.mark.skipif(not package_installed(), reason="mamba-ssm is not installed")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_package_agrees() -> None:
    torch.manual_seed(0)
    plain, fused = Mamba(64).cuda(), Mamba(64, scan="mamba-ssm").cuda()
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(2, 9, 64, device="cuda")
    torch.testing.assert_close(fused(x), plain(x), atol=1e-4, rtol=1e-4)
