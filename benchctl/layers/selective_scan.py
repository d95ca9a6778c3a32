"""Mamba: a state-space layer whose dynamics depend on what it reads (Gu and Dao 2023, arXiv 2312.00752, Section 3 and Algorithm 2).

For every channel d with N hidden states, from position to position

    h[l] = exp(delta[l] A) h[l - 1] + delta[l] B[l] u[l]        y[l] = C[l] . h[l] + D u[l]

where delta, B and C are made of the input. Here the recurrence runs position by position in plain torch, on any device: it is meant
for the tens of units of a clip, not for long sequences. The package `mamba-ssm` has the same layer as one CUDA kernel; parameters
have its names and shapes, so weights go both ways.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.full_precision import full_precision

# B batch, L positions, E inner channels, N hidden states of a channel, C width

Scan = Literal["plain", "mamba-ssm"]


def selective_scan(u_BLE: Tensor, delta_BLE: Tensor, A_EN: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_E: Tensor) -> Tensor:
    """The recurrence above, in the precision of `u_BLE`.

    Args:
        u_BLE: input.
        delta_BLE: step sizes, positive.
        A_EN: decay rates, negative.
        B_BLN: how the input enters the states.
        C_BLN: how the states leave.
        D_E: what goes past the states.

    Returns:
        (B, L, E).
    """
    decay = torch.exp(delta_BLE.unsqueeze(-1) * A_EN)
    entering = (delta_BLE * u_BLE).unsqueeze(-1) * B_BLN.unsqueeze(2)
    state = entering[:, 0]
    leaving = [state @ C_BLN[:, 0].unsqueeze(-1)]
    for position in range(1, u_BLE.shape[1]):
        state = decay[:, position] * state + entering[:, position]
        leaving.append(state @ C_BLN[:, position].unsqueeze(-1))
    return torch.cat(leaving, dim=-1).transpose(1, 2) + D_E * u_BLE


def package_installed() -> bool:
    """Whether `mamba-ssm` is on this machine."""
    return importlib.util.find_spec("mamba_ssm") is not None


class Mamba(nn.Module):
    """A Mamba layer: (B, L, C) to (B, L, C), each position from those up to it.

    Args:
        width: C.
        states: N.
        kernel: positions that the causal convolution before the scan sees.
        expand: E over C.
        scan: who runs the recurrence on CUDA; elsewhere it is always `plain`.
    """

    def __init__(self, width: int, *, states: int = 16, kernel: int = 4, expand: int = 2, scan: Scan = "plain") -> None:
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.scan = scan
        self.sizes = (rank, states, states)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._start_with_steps(0.001, 0.1)

    def _start_with_steps(self, least: float, most: float) -> None:
        """Step sizes log-uniform between the two at the start (Section 3.6): softplus of the bias gives them."""
        step = torch.exp(torch.rand_like(self.dt_proj.bias) * math.log(most / least) + math.log(least))
        nn.init.uniform_(self.dt_proj.weight, -(self.sizes[0] ** -0.5), self.sizes[0] ** -0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        length = x_BLC.shape[1]
        u, gate = self.in_proj(x_BLC).chunk(2, dim=-1)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., :length].transpose(1, 2))
        low_rank, B, C = self.x_proj(u).split(self.sizes, dim=-1)
        delta = F.softplus(self.dt_proj(low_rank))
        # the recurrence multiplies as often as there are positions: in half precision, errors would add up
        with full_precision(u.device.type):
            y = self._scanned(*(tensor.float() if tensor.dtype != torch.float64 else tensor for tensor in (u, delta, B, C)))
        result: Tensor = self.out_proj(y * F.silu(gate))
        return result

    def _scanned(self, u_BLE: Tensor, delta_BLE: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
        A = -torch.exp(self.A_log.to(u_BLE.dtype))
        if self.scan == "mamba-ssm" and u_BLE.is_cuda:
            from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

            channels_first = (tensor.transpose(1, 2).contiguous() for tensor in (u_BLE, delta_BLE))
            scanned: Tensor = selective_scan_fn(*channels_first, A, B_BLN.transpose(1, 2), C_BLN.transpose(1, 2), self.D)
            return scanned.transpose(1, 2)
        return selective_scan(u_BLE, delta_BLE, A, B_BLN, C_BLN, self.D)
