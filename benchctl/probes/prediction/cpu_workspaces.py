"""Bytes that CPU kernels allocate for themselves, which no operator's result shows.

Modelled, from what torch's allocator reports on x86-64: the copy of an operand that arithmetic on mixed types, or a sum of truth values,
makes (CUDA converts in registers), and the blocked layouts into which oneDNN reorders a convolution's tensors.

Asked of the kernel itself, once per shape and cut to the part that matters, because it depends on this machine's instructions and
threads: the scratchpads of oneDNN's half-precision matrix products, of the weight gradient of convolutions on images, and all that
convolutions in half precision, or over time or space-time, allocate. Not modelled: the per-thread buffers of the flash kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from benchctl.probes.memory import live_bytes

aten = torch.ops.aten

#: channels of one block of oneDNN's layouts; an input with fewer is read as it is
CHANNEL_BLOCK = 16

#: a scratchpad holds blocks, so that beyond this size of matrix it no longer grows
LARGEST_SIDE = 1536
_HALF = (torch.bfloat16, torch.float16)


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


def _counted(args: tuple[Any, ...]) -> int:
    """Sums of truth values and small integers are taken of a copy in 64 bits."""
    x = args[0]
    whole = not (x.dtype.is_floating_point or x.dtype.is_complex)
    return x.numel() * torch.int64.itemsize if whole and x.dtype != torch.int64 else 0


def _convolution(args: tuple[Any, ...]) -> int:
    """Blocked input and weight while the blocked result is computed; then the blocked result while it is reordered."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    if x.dim() != 4 or x.dtype in _HALF:
        return _asked(aten.convolution.default, args)
    if not _blocked(x, weight, None if bias is None else list(bias.shape), args[3:9]):
        return 0
    result = aten.convolution.default(
        *(_on_meta(t) for t in (x, weight, bias)), stride, padding, dilation, transposed, output_padding, groups
    )
    return _copied(x) + max(_reordered(x) + _bytes(weight), _bytes(result))


def _convolution_backward(args: tuple[Any, ...]) -> int:
    """As `_convolution`, first for the input's gradient, then for the weight's while the input's is already there."""
    gradient, x, weight, bias_sizes = args[:4]
    if x.dim() != 4 or x.dtype in _HALF:
        return _asked(aten.convolution_backward.default, args)
    if not _blocked(x, weight, bias_sizes, args[4:10]):
        return 0
    with_input, with_weight = args[10][:2]
    weight_result = _bytes(weight) if with_weight else 0
    peaks = [0]
    if with_input:
        # Strided kernels give the gradient in another layout, and torch copies it once more.
        copies = 2 if max(args[4]) > 1 else 1
        peaks += [_bytes(gradient) + _bytes(weight) - weight_result, copies * _bytes(x) - weight_result]
    if with_weight:
        peaks += [_bytes(gradient) + _reordered(x), weight_result]
    if with_weight and x.shape[1] < CHANNEL_BLOCK:
        # Samples are worked on by one thread each, so that more of them than threads take no more scratch.
        threads = torch.get_num_threads()
        geometry = tuple(tuple(value) if isinstance(value, list) else value for value in args[4:10])
        peaks.append(_image_scratchpad((min(x.shape[0], threads), *x.shape[1:]), tuple(weight.shape), geometry, x.dtype, threads))
    return _copied(x) + _copied(gradient) + max(peaks)


def _asked(operator: torch._ops.OpOverload, args: tuple[Any, ...]) -> int:
    """What the operator allocates beyond its results, as it is called."""
    return _asked_once(operator, tuple(map(_described, args)), torch.get_num_threads())


def _described(arg: Any) -> Any:
    """A tensor by its shape, strides and type; a list as a tuple, so that it can be a cache's key."""
    if isinstance(arg, torch.Tensor):
        return _Tensor(tuple(arg.shape), arg.stride(), arg.dtype)
    return tuple(arg) if isinstance(arg, list) else arg


class _Tensor(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


@cache
def _asked_once(operator: torch._ops.OpOverload, described: tuple[Any, ...], _threads: int) -> int:
    with _disable_current_modes(), torch.no_grad():
        args = [torch.empty_strided(*each[:2], dtype=each.dtype).zero_() if isinstance(each, _Tensor) else each for each in described]
        results: list[Any] = []
        peak = live_bytes(lambda: results.append(operator(*args))).value_bytes
    made = results[0] if isinstance(results[0], tuple) else results
    kept = sum(_bytes(tensor) for tensor in made if isinstance(tensor, torch.Tensor))
    return 0 if peak is None else max(0, peak - kept)


@cache
def _image_scratchpad(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], geometry: tuple[Any, ...], dtype: torch.dtype, _threads: int
) -> int:
    """What the weight gradient of a convolution allocates beyond its result. The threads are part of the cache's key."""
    with _disable_current_modes(), torch.no_grad():
        x, weight = torch.zeros(x_shape, dtype=dtype), torch.zeros(weight_shape, dtype=dtype)
        gradient = torch.zeros_like(aten.convolution(x, weight, None, *geometry))
        backward = aten.convolution_backward
        peak = live_bytes(lambda: backward(gradient, x, weight, None, *geometry, (False, True, False))).value_bytes
    return 0 if peak is None else peak - _bytes(weight)


def _blocked(x: torch.Tensor, weight: torch.Tensor, bias_sizes: list[int] | None, geometry: tuple[Any, ...]) -> bool:
    """Whether torch gives the convolution to oneDNN with channels-first tensors."""
    stride, padding, dilation, transposed, output_padding, groups = geometry
    backend = torch._C._select_conv_backend(x, weight, None, stride, padding, dilation, transposed, output_padding, groups, bias_sizes)
    onednn = torch._C._ConvBackend.Mkldnn  # type: ignore[attr-defined]
    return bool(backend == onednn) and not _channels_last(x)


def _channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d) if x.dim() in (4, 5) else False


def _copied(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_contiguous() else _bytes(tensor)


def _reordered(x: torch.Tensor) -> int:
    return _bytes(x) if x.shape[1] >= CHANNEL_BLOCK else 0


def _matrix_product(*places: int) -> Callable[[tuple[Any, ...]], int]:
    def scratch(args: tuple[Any, ...]) -> int:
        first, second = (args[place] for place in places)
        if first.dtype not in _HALF:
            return 0
        *_, rows, inner = first.shape
        columns = second.shape[-1]
        sides = tuple(min(side, LARGEST_SIDE) for side in (rows, inner, columns))
        return _scratchpad(sides, first.stride(-1) != 1, second.stride(-1) != 1, first.dtype, torch.get_num_threads())

    return scratch


@cache
def _scratchpad(sides: tuple[int, int, int], first_transposed: bool, second_transposed: bool, dtype: torch.dtype, _threads: int) -> int:
    """What a product of (rows, inner) and (inner, columns) allocates beyond its result. The threads are part of the cache's key."""
    rows, inner, columns = sides
    with _disable_current_modes(), torch.no_grad():
        first = torch.zeros(inner, rows, dtype=dtype).t() if first_transposed else torch.zeros(rows, inner, dtype=dtype)
        second = torch.zeros(columns, inner, dtype=dtype).t() if second_transposed else torch.zeros(inner, columns, dtype=dtype)
        peak = live_bytes(lambda: torch.mm(first, second)).value_bytes
    return 0 if peak is None else peak - rows * columns * dtype.itemsize


def _on_meta(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_ARITHMETIC = (aten.add, aten.sub, aten.mul, aten.div)
_RULES: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    **{operator.Tensor: _converted_operands for operator in _ARITHMETIC},
    aten.sum.default: _counted,
    aten.sum.dim_IntList: _counted,
    aten.mm.default: _matrix_product(0, 1),
    aten.addmm.default: _matrix_product(1, 2),
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
