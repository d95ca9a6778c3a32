"""Bytes that CPU kernels allocate for themselves, which no operator's result shows.

Modelled, from what torch's allocator reports on x86-64: the copy of an operand that arithmetic on mixed types makes (CUDA converts in
registers), and the blocked layouts into which oneDNN reorders a convolution's tensors. Not modelled: oneDNN's scratchpads and the
per-thread buffers of the flash kernel, which depend on block sizes chosen at run time and are small where activations are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

#: channels of one block of oneDNN's layouts; an input with fewer is read as it is
CHANNEL_BLOCK = 16


def kernel_workspace(operator: torch._ops.OpOverload, args: tuple[Any, ...]) -> int:
    """Bytes that the CPU's kernel for `operator` holds on top of its inputs and results while it runs."""
    rule = _RULES.get(operator)
    return rule(args) if rule is not None else 0


def _converted_operands(args: tuple[Any, ...]) -> int:
    first, second = args[:2]
    if not isinstance(second, torch.Tensor) or first.dtype == second.dtype or first.dim() == 0 or second.dim() == 0:
        return 0
    common = torch.result_type(first, second)
    return sum(t.numel() * common.itemsize for t in (first, second) if t.dtype != common)


def _convolution(args: tuple[Any, ...]) -> int:
    """Blocked input and weight while the blocked result is computed; then the blocked result while it is reordered."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    if not _blocked(x, weight, None if bias is None else list(bias.shape), args[3:9]):
        return 0
    result = aten.convolution.default(
        *(_on_meta(t) for t in (x, weight, bias)), stride, padding, dilation, transposed, output_padding, groups
    )
    return max(_reordered(x) + _bytes(weight), _bytes(result))


def _convolution_backward(args: tuple[Any, ...]) -> int:
    """As `_convolution`, first for the input's gradient, then for the weight's while the input's is already there."""
    gradient, x, weight, bias_sizes = args[:4]
    if not _blocked(x, weight, bias_sizes, args[4:10]):
        return 0
    with_input, with_weight = args[10][:2]
    weight_result = _bytes(weight) if with_weight else 0
    peaks = [0]
    if with_input:
        peaks += [_bytes(gradient) + _bytes(weight) - weight_result, _bytes(x) - weight_result]
    if with_weight:
        peaks += [_bytes(gradient) + _reordered(x), weight_result]
    return max(peaks)


def _blocked(x: torch.Tensor, weight: torch.Tensor, bias_sizes: list[int] | None, geometry: tuple[Any, ...]) -> bool:
    """Whether torch gives the convolution to oneDNN with channels-first tensors."""
    stride, padding, dilation, transposed, output_padding, groups = geometry
    backend = torch._C._select_conv_backend(x, weight, None, stride, padding, dilation, transposed, output_padding, groups, bias_sizes)
    onednn = torch._C._ConvBackend.Mkldnn  # type: ignore[attr-defined]
    return bool(backend == onednn) and x.is_contiguous()


def _reordered(x: torch.Tensor) -> int:
    return _bytes(x) if x.shape[1] >= CHANNEL_BLOCK else 0


def _on_meta(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_ARITHMETIC = (aten.add, aten.sub, aten.mul, aten.div)
_RULES: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    **{operator.Tensor: _converted_operands for operator in _ARITHMETIC},
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
