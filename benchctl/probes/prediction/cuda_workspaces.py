"""Bytes that CUDA kernels allocate for themselves, which no operator's result shows.

Modelled: the gradient accumulators of the fused attention kernels (`mha_bwd` in `flash_api.cpp`; `Params::workspace_size` in
`kernel_backward.h` of the memory-efficient kernel), copies of operands whose strides cuBLAS cannot read, and copies of what cuDNN's
convolutions and batch normalisations are given neither contiguous nor channels-last. Not modelled: cuDNN's own workspaces, whose size
depends on the algorithm it picks on the device at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

#: cuBLAS's default workspace per stream and thread before Hopper: 2 x 4096 KiB + 8 x 16 KiB
CUBLAS_WORKSPACE_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024
#: the same on Hopper and later
CUBLAS_WORKSPACE_BYTES_HOPPER = 32 * 1024 * 1024

aten = torch.ops.aten
_FLOAT = 4


def kernel_workspace(operator: torch._ops.OpOverload, args: tuple[Any, ...]) -> int:
    """Bytes that CUDA's kernel for `operator` holds on top of its inputs and results while it runs."""
    rule = _RULES.get(operator)
    return rule(args) if rule is not None else 0


def uses_cublas(operator: torch._ops.OpOverload) -> bool:
    """Whether `operator` makes cuBLAS allocate its per-thread workspace, which is kept from then on."""
    return operator in _CUBLAS


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


# B batch, H heads, L queries, D head width
def _flash_backward(args: tuple[Any, ...]) -> int:
    B, H, L, D = args[1].shape
    rows, width = _round_up(L, 128), _round_up(D, 32 if D <= 128 else 64)
    return B * H * rows * (width + 1) * _FLOAT  # query gradient and softmax sums, both in float32


def _efficient_forward(args: tuple[Any, ...]) -> int:
    query, value = args[0], args[2]
    B, H, L, _ = query.shape
    wide_half = query.dtype != torch.float32 and value.shape[-1] > 128
    return int(B * H * L * value.shape[-1] * _FLOAT) if wide_half else 0


def _efficient_backward(args: tuple[Any, ...]) -> int:
    query = args[1]
    B, H, L, D = query.shape
    delta = B * H * _round_up(L, 32) * _FLOAT
    if query.dtype == torch.float32:
        return int(delta)
    return int(delta + B * H * _round_up(L, 64) * _round_up(D, 32) * _FLOAT)


def _matrix_copies(*places: int) -> Callable[[tuple[Any, ...]], int]:
    return lambda args: sum(_bytes(args[i]) for i in places if not _readable_by_cublas(args[i]))


def _readable_by_cublas(matrix: torch.Tensor) -> bool:
    """Whether the last two dimensions are a matrix or its transpose, with any leading dimension that is long enough."""
    rows, columns = matrix.shape[-2:]
    row_stride, column_stride = matrix.stride()[-2:]
    return (column_stride == 1 and row_stride >= max(1, columns)) or (row_stride == 1 and column_stride >= max(1, rows))


def _cudnn_copies(*places: int) -> Callable[[tuple[Any, ...]], int]:
    return lambda args: sum(_bytes(args[i]) for i in places if not args[i].is_contiguous(memory_format=suggest_memory_format(args[i])))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_RULES: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_efficient_attention.default: _efficient_forward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten.mm.default: _matrix_copies(0, 1),
    aten.bmm.default: _matrix_copies(0, 1),
    aten.addmm.default: _matrix_copies(1, 2),
    aten.baddbmm.default: _matrix_copies(1, 2),
    aten.convolution.default: _cudnn_copies(0),
    aten.convolution_backward.default: _cudnn_copies(0, 1),
    aten.native_batch_norm.default: _cudnn_copies(0),
    aten.native_batch_norm_backward.default: _cudnn_copies(0, 1),
}
_CUBLAS = frozenset((aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default))
