"""Scaled dot-product attention with the backend chosen by name.

`eager` writes softmax(QK)V out, so the whole attention matrix is stored for the backward pass. `sdpa` is torch's fused call, whose
kernel torch picks. `math`, `efficient` and `flash` are the same call with that kernel fixed; the backward pass of a call always
uses the kernel of its forward pass. The kernel is fixed around each call rather than around the model, so that a forward pass
recomputed by activation checkpointing uses it too. While a call runs, `torch.backends.cuda.math_sdp_enabled()` and its siblings
tell which kernels are allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchctl.errors import DeviceMissing, UsageError
from benchctl.spec import Attention

# B batch, Q queries, P tokens, C width

#: every backend that `attend` offers; what `auto` means comes first
BACKENDS: tuple[Attention, ...] = ("sdpa", "eager", "math", "efficient", "flash")

_KERNELS: dict[Attention, SDPBackend] = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}
#: how torch's own error begins when the fixed kernel takes neither this device nor this precision
_REFUSED = ("No available kernel", "No viable backend")


@contextmanager
def fixed_kernel(attention: Attention, device: torch.device) -> Iterator[None]:
    """Fix the kernel of every `scaled_dot_product_attention` call inside; `sdpa` and `eager` fix nothing.

    Raises:
        DeviceMissing: `efficient` on the CPU, which torch has no such kernel for.
        UsageError: the kernel refuses the inputs, for example `flash` with fp32 on CUDA.
    """
    kernel = _KERNELS.get(attention)
    if kernel is None:
        yield
        return
    if attention == "efficient" and device.type == "cpu":
        raise DeviceMissing("attention 'efficient' runs on CUDA only", fix="use sdpa, math or flash on the CPU")
    try:
        with sdpa_kernel(kernel):
            yield
    except RuntimeError as error:
        if not str(error).startswith(_REFUSED):
            raise
        raise UsageError(
            f"attention '{attention}' refuses these inputs on {device.type}",
            fix="flash takes fp16 and bf16 only on CUDA; use sdpa to let torch choose",
        ) from error


def attend(query: Tensor, key: Tensor, value: Tensor, attention: Attention, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(width)) V.

    Args:
        query: (..., queries, width), at least one leading dimension for heads.
        key: (..., keys, width).
        value: (..., keys, width).
        attention: backend, resolved (not `auto`).
        mask: (queries, keys), true where a query may look; None: everywhere.

    Returns:
        (..., queries, width).

    Raises:
        DeviceMissing, UsageError: as `fixed_kernel`.
    """
    if attention == "eager":
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1) @ value
    with fixed_kernel(attention, query.device):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class MultiHeadAttention(nn.Module):
    """Queries that attend tokens of the same width, with linear layers before and after.

    Keys and values come from one product: under autocast, each product keeps a copy of its input in half precision.

    Args:
        width: C.
        heads: a divisor of C.
        attention: backend.
    """

    def __init__(self, width: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, query_BQC: Tensor, tokens_BPC: Tensor, mask_QP: Tensor | None = None) -> Tensor:
        """(B, Q, C) and (B, P, C) to (B, Q, C); `mask_QP` is true where a query may look."""
        projected = (self.query(query_BQC), *self.key_value(tokens_BPC).chunk(2, dim=-1))
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        result: Tensor = self.out(attend(query, key, value, self.attention, mask_QP).transpose(1, 2).flatten(2))
        return result


def transformers_backend(attention: Attention) -> str:
    """The name under which `transformers` runs `attention`, for `attn_implementation` of a model's configuration.

    `eager` and `sdpa` are the library's own; a fixed kernel is registered with it as the library's `sdpa` inside `fixed_kernel`.
    """
    kernel = _KERNELS.get(attention)
    if kernel is None:
        return attention
    from transformers import AttentionInterface

    # the kernel's number, not its name: the library looks for a flash-attention package behind any name with `flash` in it
    name = f"benchctl-sdpa-kernel-{kernel.value}"
    AttentionInterface.register(name, partial(_transformers_attention, attention))
    return name


def _transformers_attention(attention: Attention, module: torch.nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with fixed_kernel(attention, query.device):
        return sdpa_attention_forward(module, query, *args, **kwargs)
