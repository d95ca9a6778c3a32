"""What CUDA's sums over a tensor's rows hold while they run.

Where few outputs are made of many inputs, torch spreads the inputs of one output over several thread blocks, which leave what they came to
in a buffer in global memory. How many blocks follows from the shapes and from the GPU: the rules are those of `setReduceConfig` in
`ATen/native/cuda/Reduce.cuh`, and of `TensorIterator` for the order of the dimensions. The gradient of every bias is such a sum, and its
buffer may be larger than what is summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchctl.gpu_models import GpuModel

aten = torch.ops.aten

WARP = 32
MOST_THREADS = 512
MOST_VALUES_A_THREAD = 256
LEAST_VALUES_A_THREAD = 16
#: sums are kept in float32
_FLOAT = 4
_INT = 4

_REDUCTIONS = frozenset(
    (aten.sum.dim_IntList, aten.sum.default, aten.mean.dim, aten.mean.default, aten.amax.default, aten.linalg_vector_norm.default)
)


@dataclass
class _Dimension:
    size: int
    #: of the input, in elements
    stride: int
    reduced: bool


def reduction_buffers(operator: torch._ops.OpOverload, args: tuple[Any, ...], gpu: GpuModel) -> tuple[int, ...]:
    """Bytes of the buffer and of the counters that `operator` takes in global memory; empty where it takes none."""
    if operator not in _REDUCTIONS:
        return ()
    tensor: torch.Tensor = args[0]
    if tensor.numel() <= 1 or not tensor.is_floating_point():
        return ()
    return _buffers(_dimensions(tensor, _reduced(operator, args, tensor.dim())), tensor.element_size(), int(tensor.storage_offset()), gpu)


def _reduced(operator: torch._ops.OpOverload, args: tuple[Any, ...], count: int) -> set[int]:
    place = 2 if operator is aten.linalg_vector_norm.default else 1
    dims = args[place] if len(args) > place and operator not in (aten.sum.default, aten.mean.default) else None
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return set(range(count))
    return {d % count for d in (dims if isinstance(dims, Sequence) else [dims])} if count else set()


def _dimensions(tensor: torch.Tensor, reduced: set[int]) -> list[_Dimension]:
    """Reduced ones first, each kind from the smallest stride up, neighbours that are one stretch of memory made one."""
    kept = [
        _Dimension(size, stride, place in reduced)
        for place, (size, stride) in reversed(list(enumerate(zip(tensor.shape, tensor.stride()))))
        if size != 1
    ]
    kept.sort(key=lambda d: (not d.reduced, d.stride))
    merged: list[_Dimension] = []
    for dimension in kept:
        before = merged[-1] if merged else None
        if before and before.reduced == dimension.reduced and before.size * before.stride == dimension.stride:
            before.size *= dimension.size
        else:
            merged.append(dimension)
    return merged


def _buffers(dimensions: list[_Dimension], element_bytes: int, offset: int, gpu: GpuModel) -> tuple[int, ...]:
    reduced, kept = [d for d in dimensions if d.reduced], [d for d in dimensions if not d.reduced]
    inputs, outputs = math.prod(d.size for d in reduced), math.prod(d.size for d in kept)
    along = not kept or (bool(reduced) and reduced[0].stride < kept[0].stride)
    x, y = (inputs, outputs) if along else (outputs, inputs)
    vector = 1
    first = (reduced or kept)[0] if along else kept[0]
    if dimensions and first.stride == 1:
        if along and x >= 128 and len(reduced) == 1:
            # half precision is read eight at a time
            x //= 8 if element_bytes == 2 else 4
        elif not along:
            others = [d.stride for d in dimensions if d is not kept[0]]
            vector = _vector((offset, kept[0].size, *others))
            x //= vector
    width, height = _block(x, y, MOST_THREADS // vector)
    step_input, step_output = (width, 1) if along else (1, width)
    across_warps = -(-inputs // step_input) >= min(height * 16, MOST_VALUES_A_THREAD)
    if across_warps:
        step_input *= height
    else:
        step_output *= height
    values, grid = -(-inputs // step_input), -(-(outputs // vector) // step_output)
    target = gpu.multiprocessors * (gpu.threads // (width * height))
    if not across_warps or values < MOST_VALUES_A_THREAD or grid > target:
        return ()
    blocks = max(min(-(-target // grid), -(-values // LEAST_VALUES_A_THREAD)), -(-values // MOST_VALUES_A_THREAD))
    if blocks <= 1:
        return ()
    return _FLOAT * outputs * blocks * (1 if along else width * vector), _INT * grid


def _block(x: int, y: int, most: int) -> tuple[int, int]:
    width, height = (_last_power_of_two(min(size, most)) for size in (x, y))
    full = width
    width = min(full, WARP)
    height = min(height, most // width)
    return min(full, most // height), height


def _last_power_of_two(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _vector(values: tuple[int, ...]) -> int:
    """How many outputs a thread reads at once: the largest of 4, 2 and 1 that divides all `values`."""
    return next(size for size in (4, 2, 1) if all(value % size == 0 for value in values))
