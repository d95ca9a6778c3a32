"""Bytes that CUDA kernels allocate for themselves, which no operator's result shows.

Modelled: what the backward passes of the attention kernels gather (`mha_bwd` in `flash_api.cpp`; `Params::workspace_size` in
`kernel_backward.h` and `attention_backward.cu` of the memory-efficient kernel), the product of the softmax's gradient, buffers of sums,
copies of operands whose strides cuBLAS cannot read, and copies of what cuDNN's convolutions and batch normalisations are given neither
contiguous nor channels-last. cuDNN's own workspaces are estimated. All of it was compared, allocation by allocation, with what torch's
allocator was asked for on an H200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from benchctl.gpu_models import GpuModel
from benchctl.probes.prediction.cuda_convolutions import convolution_backward_workspaces, convolution_workspaces
from benchctl.probes.prediction.cuda_reductions import reduction_buffers

#: cuBLAS's default workspace per stream and thread before Hopper: 2 x 4096 KiB + 8 x 16 KiB
CUBLAS_WORKSPACE_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024
#: the same on Hopper and later
CUBLAS_WORKSPACE_BYTES_HOPPER = 32 * 1024 * 1024
#: cuBLASLt's own
CUBLASLT_WORKSPACE_BYTES = 1024 * 1024

aten = torch.ops.aten
_FLOAT = 4
#: queries, and keys, of a block of the memory-efficient kernel
_TILE = 64


#: bytes that a kernel holds at the same time
Phase = tuple[int, ...]
Rule = Callable[[tuple[Any, ...], GpuModel], tuple[Phase, ...]]


def kernel_workspaces(operator: torch._ops.OpOverload, args: tuple[Any, ...], gpu: GpuModel) -> tuple[Phase, ...]:
    """What CUDA's kernel for `operator` holds on top of its inputs and results while it runs, one phase after the other."""
    rule = _RULES.get(operator)
    if rule is not None:
        return rule(args, gpu)
    phase = reduction_buffers(operator, args, gpu)
    return (phase,) if phase else ()


def thread_workspaces(operator: torch._ops.OpOverload, args: tuple[Any, ...], gpu: GpuModel) -> Iterator[tuple[str, int]]:
    """Names and bytes of what `operator` makes cuBLAS allocate once for each thread, and keep from then on."""
    if operator in _CUBLAS:
        yield "cuBLAS workspace", CUBLAS_WORKSPACE_BYTES_HOPPER if gpu.hopper else CUBLAS_WORKSPACE_BYTES
    # a bias vector goes through cuBLASLt, which adds it on the way
    if operator is aten.addmm.default and args[0].dim() == 1:
        yield "cuBLASLt workspace", CUBLASLT_WORKSPACE_BYTES


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


# B batch, H heads, L queries, S keys, D head width
def _flash_backward(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    B, H, L, D = args[1].shape
    rows, width = _round_up(L, 128), _round_up(D, 32 if D <= 128 else 64)
    # softmax sums and the query's gradient, both in float32
    return ((B * H * rows * _FLOAT, B * H * rows * width * _FLOAT),)


def _cudnn_attention_backward(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    B, H, L, D = args[1].shape
    return ((B * H * L * (D + 1) * _FLOAT,),)  # as flash, in one piece and without rounding


def _efficient_forward(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    query, value = args[0], args[2]
    B, H, L, _D = query.shape
    wide_half = query.dtype != torch.float32 and value.shape[-1] > 128
    return ((int(B * H * L * value.shape[-1] * _FLOAT),),) if wide_half else ()


def _efficient_backward(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    query, S = args[1], args[2].shape[2]
    B, H, L, D = query.shape
    sums = B * H * L * _FLOAT
    # tiles of the query's gradient, each with a lock and a counter, where several blocks of keys add to it
    tiles = B * H * -(-L // _TILE) * (_TILE * _round_up(D, _TILE) * _FLOAT + 16)
    if query.dtype != torch.float32:
        return ((sums, tiles),)
    alone = -(-S // _TILE) == 1 or (B * H >= 256 and S <= 2 * _TILE)
    # here the sums are a product, reduced by a kernel of its own
    product = B * H * L * D * _FLOAT
    return ((product, sums, sums), (sums,) if alone else (sums, tiles))


def _softmax_backward(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    return ((_bytes(args[0]),),)  # gradient times output


def _convolution(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
    copies = _copies(args, 0)
    return _with(copies, convolution_workspaces(args))


def _convolution_backward(args: tuple[Any, ...], gpu: GpuModel) -> tuple[Phase, ...]:
    gradient, wanted = args[0], args[10]
    copies = _copies(args, 0, 1)
    phases = _with(copies, convolution_backward_workspaces(args, gpu))
    if not wanted[2]:
        return phases
    over = [0, *range(2, gradient.dim())]
    bias = reduction_buffers(aten.sum.dim_IntList, (gradient, over), gpu)
    return (*phases, copies + bias) if bias else phases


def _with(copies: Phase, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """`copies` held during all of `phases`."""
    if not phases:
        return (copies,) if copies else ()
    return tuple(copies + phase for phase in phases)


def _matrix_copies(*places: int) -> Rule:
    def rule(args: tuple[Any, ...], _: GpuModel) -> tuple[Phase, ...]:
        copies = tuple(_bytes(args[i]) for i in places if not _readable_by_cublas(args[i]))
        return (copies,) if copies else ()

    return rule


def _cudnn_copies(*places: int) -> Rule:
    return lambda args, _: _with(_copies(args, *places), ())


def _copies(args: tuple[Any, ...], *places: int) -> Phase:
    return tuple(_bytes(args[i]) for i in places if not args[i].is_contiguous(memory_format=suggest_memory_format(args[i])))


def _readable_by_cublas(matrix: torch.Tensor) -> bool:
    """Whether the last two dimensions are a matrix or its transpose, with any leading dimension that is long enough."""
    rows, columns = matrix.shape[-2:]
    row_stride, column_stride = matrix.stride()[-2:]
    return (column_stride == 1 and row_stride >= max(1, columns)) or (row_stride == 1 and column_stride >= max(1, rows))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_RULES: dict[Any, Rule] = {
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_attention_backward,
    aten._scaled_dot_product_efficient_attention.default: _efficient_forward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.mm.default: _matrix_copies(0, 1),
    aten.bmm.default: _matrix_copies(0, 1),
    aten.addmm.default: _matrix_copies(1, 2),
    aten.baddbmm.default: _matrix_copies(1, 2),
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm.default: _cudnn_copies(0),
    aten.native_batch_norm_backward.default: _cudnn_copies(0, 1),
}
_CUBLAS = frozenset((aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default))
