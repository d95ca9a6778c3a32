"""What cuDNN's convolutions hold while they run: an estimate, where the rest of the prediction counts.

cuDNN picks an algorithm on the device at hand and says only there what it takes. What was seen on an H200 (cuDNN 9, float32 with TF32,
float16 and bfloat16) follows a pattern: matrix units want channels last, so that inputs, weights and outputs that are not get a copy that
is, with channels filled up to 16 bytes. Pointwise convolutions need none, as long as every channel starts at a multiple of 16 bytes; their
weight gradients are split over the batch and summed. Grouped convolutions take nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from benchctl.gpu_models import GpuModel

#: parts into which the weight gradient of a pointwise convolution is split, each in float32
PARTS = 32
#: above this weight it is not split
SPLIT_BYTES = 2**20
_FLOAT = 4
#: rows and columns of a weight's gradient that one multiprocessor makes
_TILE = 128


def convolution_workspaces(args: tuple[Any, ...]) -> tuple[tuple[int, ...], ...]:
    """One phase: `aten.convolution` on (input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    inputs, weight, stride, groups = args[0], args[1], args[3], args[8]
    if groups != 1 or not _converted(inputs, weight, stride):
        return ()
    patches = not _is_pointwise(weight) and tuple(weight.shape[2:]) == tuple(stride)
    if patches and inputs.dim() == 4:
        return ()
    # patches meet their weights as one matrix product, whose result needs no conversion
    result = 0 if patches else _outputs(inputs, weight, stride)
    return ((_filled(inputs, 1) + _weight(weight) + result,),)


def convolution_backward_workspaces(args: tuple[Any, ...], gpu: GpuModel) -> tuple[tuple[int, ...], ...]:
    """A phase for the gradient of the input, and one for that of the weight, where they are asked for."""
    gradient, inputs, weight, stride, groups, wanted = args[0], args[1], args[2], args[4], args[9], args[10]
    if groups != 1:
        return ()
    if _converted(inputs, weight, stride):
        size = _filled(inputs, 1) + _weight(weight) + _filled(gradient, 1)
        return ((size,),) * bool(wanted[0]) + ((size + _partial_sums(weight, gpu),),) * bool(wanted[1])
    parts = PARTS * weight.numel() * _FLOAT
    return ((parts,),) if wanted[1] and weight.numel() * _FLOAT <= SPLIT_BYTES else ()


def _partial_sums(weight: torch.Tensor, gpu: GpuModel) -> int:
    """What the parts of a weight's gradient take, of which there are as many as keep all multiprocessors busy."""
    rows, columns = weight.shape[0], weight[0].numel()
    tile = _TILE if rows >= _TILE else _TILE // 2
    tiles = -(-rows // tile) * -(-columns // tile)
    half = weight.element_size() < _FLOAT
    parts = gpu.multiprocessors // (3 * tiles if half else tiles)
    if parts > 1:
        return parts * weight.numel() * _FLOAT
    return 0 if half else gpu.multiprocessors // 2 * tile * tile * _FLOAT


def _converted(inputs: torch.Tensor, weight: torch.Tensor, stride: Any) -> bool:
    if suggest_memory_format(inputs) is not torch.contiguous_format:
        return False
    if not _is_pointwise(weight) or any(step != 1 for step in stride):
        return True
    # a channel's size decides whether the next one is aligned
    return bool(math.prod(inputs.shape[2:]) % 4)


def _is_pointwise(weight: torch.Tensor) -> bool:
    return math.prod(weight.shape[2:]) == 1


def _weight(weight: torch.Tensor) -> int:
    return 0 if _is_pointwise(weight) else _filled(weight, 1)


def _filled(tensor: torch.Tensor, place: int) -> int:
    """Bytes of `tensor` with its dimension `place` filled up to 16 bytes."""
    whole = 16 // tensor.element_size()
    channels = tensor.shape[place]
    return tensor.numel() // channels * (-(-channels // whole) * whole) * tensor.element_size()


def _outputs(inputs: torch.Tensor, weight: torch.Tensor, stride: Any) -> int:
    """Bytes of the result, without what padding adds to it."""
    whole = 16 // inputs.element_size()
    places = math.prod(-(-size // step) for size, step in zip(inputs.shape[2:], stride))
    return int(inputs.shape[0] * (-(-weight.shape[0] // whole) * whole) * places * inputs.element_size())
