"""Which attention kernel a CUDA device would run, for `torch.nn.functional.scaled_dot_product_attention` on the fake device.

The kernel decides what a step keeps: `math` stores the attention matrix, the fused kernels store one number per query row. The rules
of `sdpa` are torch's (`aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`): flash for half precision without a mask, then
memory-efficient, then math; on Hopper cuDNN's kernel before them, for half precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.nn import functional as F

from benchctl.errors import TraceFailed
from benchctl.gpu_models import DEFAULT_GPU, GPUS, GpuModel
from benchctl.spec import Attention

Kernel = Literal["cudnn", "flash", "efficient", "math"]

#: widest head that torch's flash kernels take
FLASH_MAX_HEAD_DIM = 256
#: widest head that cuDNN's takes
CUDNN_MAX_HEAD_DIM = 128

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_libraries: list[torch.library.Library] = []


class Policy:
    """What attention does while a step is traced, and which kernels it came to."""

    def __init__(self, attention: Attention, gpu: GpuModel) -> None:
        self.attention = attention
        self._gpu = gpu
        #: calls by kernel
        self.used: Counter[str] = Counter()

    def choose(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> Kernel:
        """The kernel for one call.

        Raises:
            TraceFailed: the policy fixes a kernel that CUDA would refuse for these tensors.
        """
        refusals: dict[Kernel, str | None] = {
            "cudnn": _cudnn_refuses(query, mask, self._gpu),
            "flash": _flash_refuses(query, mask, self._gpu),
            "efficient": _efficient_refuses(query, key),
            "math": None,
        }
        if self.attention in ("flash", "efficient"):
            refusal = refusals[self.attention]
            if refusal:
                raise TraceFailed(f"attention '{self.attention}' cannot run here: {refusal}", fix="use 'sdpa'")
            return self.attention
        if self.attention == "math":
            return "math"
        return next(kernel for kernel, refusal in refusals.items() if refusal is None)


# Not a context variable: autograd recomputes checkpointed blocks on a thread of its own, under the same policy.
_policy = Policy("sdpa", GPUS[DEFAULT_GPU])


@contextmanager
def policy(attention: Attention, gpu: GpuModel) -> Iterator[Policy]:
    """Let calls on the fake device run as `attention` says. `eager` and `auto` models that still call SDPA get torch's rules."""
    global _policy
    before, _policy = _policy, Policy(attention, gpu)
    try:
        yield _policy
    finally:
        _policy = before


def register() -> None:
    """Put `_attention` in the place of torch's own choice on the PrivateUse1 device. Call once per process."""
    # On the autograd key, so that the chosen kernel is differentiated by its own formula, also while a checkpoint recomputes.
    library = torch.library.Library("aten", "IMPL", "AutogradPrivateUse1")
    library.impl("scaled_dot_product_attention", _attention)
    _libraries.append(library)


def _cudnn_refuses(query: torch.Tensor, mask: torch.Tensor | None, gpu: GpuModel) -> str | None:
    if not gpu.hopper:
        return "torch takes it on Hopper only"
    if query.dtype not in _HALF:
        return f"it takes fp16 and bf16, not {_name(query.dtype)}"
    if mask is not None:
        return "it takes no mask"
    if query.shape[-1] > CUDNN_MAX_HEAD_DIM or query.shape[-1] % 8:
        return f"heads are {query.shape[-1]} wide, it takes multiples of 8 up to {CUDNN_MAX_HEAD_DIM}"
    return None


def _flash_refuses(query: torch.Tensor, mask: torch.Tensor | None, gpu: GpuModel) -> str | None:
    if gpu.capability < 8:
        return "it takes an Ampere GPU or a later one"
    if query.dtype not in _HALF:
        return f"it takes fp16 and bf16, not {_name(query.dtype)}"
    if mask is not None:
        return "it takes no mask"
    if query.shape[-1] > FLASH_MAX_HEAD_DIM:
        return f"heads are {query.shape[-1]} wide, it takes up to {FLASH_MAX_HEAD_DIM}"
    return None


def _efficient_refuses(query: torch.Tensor, key: torch.Tensor) -> str | None:
    if query.dtype not in (*_HALF, torch.float32):
        return f"it takes fp16, bf16 and fp32, not {_name(query.dtype)}"
    alignment = 8 if query.dtype in _HALF else 4
    if query.shape[-1] % alignment:
        return f"heads are {query.shape[-1]} wide, it takes multiples of {alignment}"
    if key.shape[1] != query.shape[1]:
        return "keys have fewer heads than queries"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# B batch, H heads, L queries, S keys, D head width
def _attention(
    query_BHLD: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """`aten::scaled_dot_product_attention` with the kernel that the current policy chooses."""
    scale: float | None = options.get("scale")
    kernel = _policy.choose(query_BHLD, key_BHSD, attn_mask)
    _policy.used[kernel] += 1
    if kernel == "flash":
        return _flash(query_BHLD, key_BHSD, value_BHSD, dropout_p=dropout_p, is_causal=is_causal, scale=scale)
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (query_BHLD, key_BHSD, value_BHSD))
    if kernel == "cudnn":
        cudnn = aten._scaled_dot_product_cudnn_attention
        return cudnn(query_BHLD, key_BHSD, value_BHSD, None, training, dropout_p, is_causal, False, scale=scale)[0]
    if kernel == "efficient":
        bias = None if attn_mask is None else _bias(attn_mask, query_BHLD, key_BHSD)
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(query_BHLD, key_BHSD, value_BHSD, bias, training, dropout_p, is_causal, scale=scale)[0]
    gqa = bool(options.get("enable_gqa", False))
    math = aten._scaled_dot_product_attention_math
    return math(query_BHLD, key_BHSD, value_BHSD, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=gqa)[0]


def _flash(*qkv: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None) -> torch.Tensor:
    width = qkv[0].shape[-1]
    scale = width**-0.5 if scale is None else scale
    padding = -width % 8
    if padding:
        qkv = tuple(F.pad(x, (0, padding)) for x in qkv)
    out = aten._scaled_dot_product_flash_attention(*qkv, dropout_p, is_causal, False, scale=scale)[0]
    return out[..., :width] if padding else out


def _bias(mask: torch.Tensor, query_BHLD: torch.Tensor, key_BHSD: torch.Tensor) -> torch.Tensor:
    """The mask as torch hands it to the memory-efficient kernel: additive, rows padded to 16 elements, expanded to (B, H, L, S)."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query_BHLD.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    keys = mask.shape[-1]
    if keys % 16:
        mask = F.pad(mask, (0, -keys % 16))[..., :keys]
    return mask.expand(*query_BHLD.shape[:3], key_BHSD.shape[2])
