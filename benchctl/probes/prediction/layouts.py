"""Memory layouts that kernels really return where torch's shape rules say otherwise.

A layout decides whether a later reshape is a view or a copy, and so belongs to a step's memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._prims_common import suggest_memory_format

aten = torch.ops.aten

# operator -> place of the input whose suggested format the first result has
_BATCH_NORM = {
    aten.native_batch_norm.default: 0,
    aten._native_batch_norm_legit.default: 0,
    aten.native_batch_norm_backward.default: 1,
}


def as_kernels_return(operator: torch._ops.OpOverload, args: tuple[Any, ...], result: Any) -> Any:
    """`result` with the layout of CUDA's and the CPU's kernels.

    Batch normalisation returns contiguous or channels-last tensors, whichever its input is nearer to; the shape rule keeps the strides
    of any input, such as those of a permuted sequence.
    """
    place = _BATCH_NORM.get(operator)
    if place is None or result[0] is None:
        return result
    first = result[0]
    expected = torch.empty_like(first, memory_format=suggest_memory_format(args[place]))
    return result if expected.stride() == first.stride() else (expected, *result[1:])
