"""CUDA's autocast rules for the fake device.

torch keeps one list of operators per device: those that run in the low precision, in float32, with a float32 result, or in the
widest type among their inputs. The lists here are CUDA's (`ATen/autocast_mode.h` of the installed torch, which a test compares them
with). As on CUDA, a float32 weight is cast once and the copy lives until the outermost `torch.autocast` block ends; those copies are
part of a step's peak.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

LOWER_PRECISION = """
    _convolution _convolution.deprecated conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d.input conv_transpose3d.input
    convolution prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot
    _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell _scaled_dot_product_flash_attention
    scaled_dot_product_attention
""".split()  # noqa: SIM905  a list of this length is unreadable as literals

FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
    softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity
    poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
    margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits
    dist pdist cdist renorm logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d
    upsample_bicubic2d _upsample_bicubic2d_aa
""".split()  # noqa: SIM905  a list of this length is unreadable as literals

#: these take a `dtype` for their result; where the caller gave none, it becomes float32
FLOAT32_RESULT = """
    prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm linalg_matrix_norm.str_ord sum
    sum.dim_IntList
""".split()  # noqa: SIM905  a list of this length is unreadable as literals

WIDEST = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add".split()  # noqa: SIM905

_HALF = (torch.float16, torch.bfloat16)
_Kernel = Callable[..., Any]
# Registrations are undone when their Library object dies.
_libraries: list[torch.library.Library] = []


def register(device: str) -> None:
    """Register the lists for the PrivateUse1 device called `device`. Call once per process."""
    fallback = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel)
    library = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    rules = ((LOWER_PRECISION, _lower_precision), (FLOAT32, _float32), (FLOAT32_RESULT, _float32_result), (WIDEST, _widest))
    for names, rule in rules:
        for name in names:
            operator = _operator(name)
            if operator is not None:
                library.impl(name, rule(operator, device))
    _libraries.extend((fallback, library))


class CastCache:
    """The low-precision copies of float32 weights that are alive, as torch keeps them for CUDA.

    torch empties its own when the outermost `torch.autocast` block of the calling thread ends. Python is not told, so
    `drop_stale` is called before every operator instead: between the block's end and the next operator nothing is allocated.
    """

    def __init__(self) -> None:
        self._casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._thread = threading.get_ident()

    def cast(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The one copy of `weight` in `dtype`."""
        # The weight is kept beside its copy: a key is its id, which must not be given to another tensor meanwhile.
        if id(weight) not in self._casts:
            self._casts[id(weight)] = (weight, weight.to(dtype))
        return self._casts[id(weight)][1]

    def drop_stale(self) -> None:
        """Forget the copies if the calling thread is the one that runs the step and is in no autocast block."""
        if self._casts and threading.get_ident() == self._thread:
            nesting = torch.autocast_increment_nesting() - 1
            torch.autocast_decrement_nesting()
            if nesting == 0:
                self._casts.clear()

    def clear(self) -> None:
        """Forget every copy, and let the calling thread own the cache from now on."""
        self._casts.clear()
        self._thread = threading.get_ident()


cache = CastCache()


def _operator(name: str) -> torch._ops.OpOverload | None:
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None)
    return getattr(packet, overload or "default", None)


def _lower_precision(operator: _Kernel, device: str) -> _Kernel:
    return _below_autocast(operator, lambda args, kwargs: _cast_all(args, kwargs, device, torch.get_autocast_dtype(device)))


def _float32(operator: _Kernel, device: str) -> _Kernel:
    return _below_autocast(operator, lambda args, kwargs: _cast_all(args, kwargs, device, torch.float32))


def _float32_result(operator: torch._ops.OpOverload, device: str) -> _Kernel:
    place = next(i for i, argument in enumerate(operator._schema.arguments) if argument.name == "dtype")

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = kwargs.get("dtype") if len(args) <= place else args[place]
        if given is not None or not _eligible(args[0], device):
            return args, kwargs
        if len(args) > place:
            return (*args[:place], torch.float32, *args[place + 1 :]), kwargs
        return args, {**kwargs, "dtype": torch.float32}

    return _below_autocast(operator, rewrite)


def _widest(operator: _Kernel, device: str) -> _Kernel:
    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        dtypes = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if _eligible(leaf, device)}
        if not dtypes:
            return args, kwargs
        return _cast_all(args, kwargs, device, torch.float32 if torch.float32 in dtypes else torch.get_autocast_dtype(device))

    return _below_autocast(operator, rewrite)


def _below_autocast(
    operator: _Kernel, rewrite: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
) -> _Kernel:
    """A kernel that rewrites its arguments and goes on below autocast, so that what it calls is not cast again."""
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(below):
            args, kwargs = rewrite(args, kwargs)
            return operator(*args, **kwargs)

    return kernel


def _eligible(value: Any, device: str) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == device and value.is_floating_point() and value.dtype != torch.float64


def _cast_all(args: tuple[Any, ...], kwargs: dict[str, Any], device: str, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # the last argument first, as the C++ that torch is built from evaluates them
    casts = {k: _cast(v, device, dtype) for k, v in reversed(kwargs.items())}
    return tuple([_cast(a, device, dtype) for a in reversed(args)][::-1]), casts


def _cast(value: Any, device: str, dtype: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_cast(v, device, dtype) for v in value)
    if not _eligible(value, device) or value.dtype == dtype:
        return value
    weight = value.requires_grad and value.is_leaf and not value._is_view()
    if weight and value.dtype == torch.float32 and dtype in _HALF and torch.is_autocast_cache_enabled():
        return cache.cast(value, dtype)
    return value.to(dtype)
