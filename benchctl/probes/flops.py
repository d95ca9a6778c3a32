"""Parameters, multiply-accumulates (MACs) and floating-point operations (FLOPs) of one forward pass, without running it.

MACs and FLOPs are two metrics, from two counters that check each other:

    MACs   fvcore's count, one per multiply-accumulate, plus scaled-dot-product attention, which stock fvcore counts as zero. fvcore
           also counts normalisations, interpolations and pooling; the papers' "GFLOPs" are this number, some without attention.
    FLOPs  torch's `FlopCounterMode`, with attention by its explicit formula: a multiplication and an addition are two. It counts
           matrix products and convolutions only.

Count at batch size 1, in evaluation mode: the number is per clip and view. Operators that fvcore does not count are recorded by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn

from benchctl.errors import TraceFailed
from benchctl.probes.hollow import Hollow

#: what a module may say it is `counted_as`, so that its operations can be told from the others
_PURPOSES = ("correlation", "flow", "window")
#: how far the two counters may be apart on matrix products and convolutions
TOLERANCE = 0.005


class ParameterCount(NamedTuple):
    """Elements of parameters; shared ones count once."""

    total: int
    trainable: int


@dataclass(frozen=True)
class OperationCount:
    """Operations of one forward pass."""

    #: with attention counted
    macs: int
    #: as stock fvcore gives it, scaled-dot-product attention left out
    macs_without_attention: int
    #: `macs` without those of modules that say `counted_as = "correlation"`: some papers leave out what compares positions
    macs_without_correlation: int
    #: `macs` without those of modules that say `counted_as = "flow"`: optical flow can be computed once, before any training
    macs_without_flow: int
    #: `macs` with what each module that says `counted_as = "window"` gives as its `window_macs` in the place of what it executes: a
    #: product of whole frames, from which a window is picked, is faster than a product for every position, and larger
    macs_windowed: int
    #: 2 for each multiply-accumulate of matrix products and convolutions
    flops: int
    #: operators that `macs` leaves out, and how often each is called
    uncounted: Mapping[str, int]
    #: `macs` by operator
    macs_by_operator: Mapping[str, int]

    @property
    def torch_counter_macs(self) -> int:
        """`flops` in multiply-accumulates: what torch's counter says about the same pass."""
        return self.flops // 2


def parameters(model: nn.Module) -> ParameterCount:
    """Number of parameters and of those that are trained."""
    counted = list(model.parameters())
    return ParameterCount(sum(p.numel() for p in counted), sum(p.numel() for p in counted if p.requires_grad))


def count(model: nn.Module, example_input: torch.Tensor | tuple[torch.Tensor, ...]) -> OperationCount:
    """Count the operations of `model(example_input)`.

    Nothing of size is computed: see `benchctl.probes.hollow`. The model may come from `empty_build` and the input from
    `torch.empty`; both are on the CPU. The model is left in the mode it was in.

    Raises:
        TraceFailed: the model cannot be traced; an attention operator is not counted; or the counters disagree by more than
            `TOLERANCE` on what both count, so that one of them misses matrix products.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    with _evaluating(model):
        by_operator, by_purpose, uncounted = _fvcore_macs(model, inputs)
        flops = _torch_flops(model, inputs)
    missed = [name for name in uncounted if _is_attention(name)]
    if missed:
        raise TraceFailed(f"attention operator {missed[0]} would be counted as zero", fix="add its formula to _HANDLES in probes/flops.py")
    products = sum(macs for name, macs in by_operator.items() if name in _PRODUCTS)
    if abs(products - flops / 2) > TOLERANCE * max(products, flops / 2):
        raise TraceFailed(f"fvcore counts {products} multiply-accumulates in matrix products and convolutions, torch {flops // 2}")
    attention = sum(macs for name, macs in by_operator.items() if _is_attention(name))
    total = sum(by_operator.values())
    return OperationCount(
        macs=total,
        macs_without_attention=total - attention,
        macs_without_correlation=total - by_purpose["correlation"],
        macs_without_flow=total - by_purpose["flow"],
        macs_windowed=total - by_purpose["window"] + sum(_asked_by_window(model)),
        flops=flops,
        uncounted=dict(sorted(uncounted.items())),
        macs_by_operator=dict(sorted(by_operator.items())),
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without the fused path of `nn.MultiheadAttention`, which hides its products from both counters.

    No parameter asks for a gradient: torch's counter puts hooks on what a module is given, and a parameter that is given to one would
    have no graph to hook into.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [p for p in model.parameters() if p.requires_grad]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            model.eval()
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training


def _asked_by_window(model: nn.Module) -> Iterator[int]:
    for module in model.modules():
        if getattr(module, "counted_as", "") == "window":
            asked: Any = module.window_macs
            yield int(asked)


def _fvcore_macs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """MACs by operator, MACs by what modules say they are counted as, and the calls of operators without a formula."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    analysis.set_op_handle(**{f"aten::{name}": handle for name, handle in _HANDLES.items()})
    try:
        with Hollow():
            counted, by_module, uncounted = analysis.by_operator(), analysis.by_module(), analysis.unsupported_ops()
    except TraceFailed:
        raise
    except Exception as error:
        raise _not_traced(error) from error
    by_purpose = dict.fromkeys(_PURPOSES, 0)
    for name, module in model.named_modules():
        if (purpose := getattr(module, "counted_as", None)) is not None:
            by_purpose[purpose] += round(by_module[name])
    return {name: round(macs) for name, macs in counted.items()}, by_purpose, dict(uncounted)


def _torch_flops(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with sdpa_kernel(SDPBackend.MATH), Hollow(), counter:
            model(*inputs)
    except TraceFailed:
        raise
    except Exception as error:
        raise _not_traced(error) from error
    return int(counter.get_total_flops())


def _not_traced(error: Exception) -> TraceFailed:
    detail = str(error).strip().splitlines() or [""]
    return TraceFailed(f"operations cannot be counted: {type(error).__name__}: {detail[0][:300]}")


def _is_attention(operator: str) -> bool:
    return "attention" in operator or "transformer" in operator


# A handle is given the traced values that enter and leave an operator, and returns MACs. B batch, H heads, L queries, S keys.


def _shape(value: Any) -> list[int]:
    sizes = value.type().sizes() if value.isCompleteTensor() else None
    if sizes is None:
        raise TraceFailed(f"the trace does not know the shape of '{value.debugName()}'")
    return list(sizes)


def _attention(inputs: list[Any], _: list[Any]) -> int:
    """Queries times keys, and weights times values; a causal mask does not lower it, as in torch's counter."""
    *heads, L, D = _shape(inputs[0])
    S, value_width = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    return prod(heads) * L * S * (D + value_width)


def _batched_product(inputs: list[Any], _: list[Any]) -> int:
    """`baddbmm` and `addbmm`: inputs 1 and 2 are (B, n, m) and (B, m, p)."""
    B, n, m = _shape(inputs[1])
    return B * n * m * _shape(inputs[2])[-1]


def _matrix_vector(inputs: list[Any], _: list[Any]) -> int:
    return prod(_shape(inputs[0]))


_HANDLES: dict[str, Callable[[list[Any], list[Any]], int]] = {
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "baddbmm": _batched_product,
    "addbmm": _batched_product,
    "mv": _matrix_vector,
}

#: what torch's counter counts too, by the names that fvcore gives
_PRODUCTS = frozenset(("addmm", "bmm", "conv", "einsum", "matmul", "mm", "linear", *_HANDLES))
