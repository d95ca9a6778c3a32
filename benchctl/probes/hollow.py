"""Models and forward passes of any size without their arithmetic and without their memory.

A hollow tensor is a CPU tensor with a shape and a storage that is never written: the system gives it no page. Everything that looks
at a model from outside (parameter counts, `torch.jit` tracing, memory prediction) sees an ordinary model.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map, tree_map_only

from benchctl.errors import TraceFailed

#: an operator none of whose storages is larger than this runs for real: schedules, position indices and shape arithmetic
REAL_BYTES = 16 * 1024


def empty_build(build: Callable[[], nn.Module]) -> nn.Module:
    """The model that `build` makes on the CPU, with the content of large tensors never computed. Leaves the random state as it was."""
    with torch.random.fork_rng(devices=[]), Hollow():
        return build()


class Hollow(TorchDispatchMode):
    """Gives operators on large tensors a result of the right shape, stride and type, and runs only views and small ones."""

    def __init__(self) -> None:
        super().__init__()
        self._other_thread: ThreadPoolExecutor | None = None

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._other_thread is not None:
            self._other_thread.shutdown()
            self._other_thread = None

    def _untraced(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` where torch.jit does not trace.

        Tracing is a property of the thread and cannot be lifted inside an operator. Under it every shape that a shape rule
        reads becomes a tensor, which most rules cannot take, and an operator of the traced graph.
        """
        if torch._C._get_tracing_state() is None:
            return function(*args)
        if self._other_thread is None:
            self._other_thread = ThreadPoolExecutor(1, thread_name_prefix="shape-rules")
        return self._other_thread.submit(function, *args).result()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run or imitate `func`.

        Raises:
            TraceFailed: `func` has no shape rule and its inputs are too large to run it.
        """
        kwargs = kwargs or {}
        if func.is_view or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        small = all(_bytes(t) <= REAL_BYTES for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor))
        if func._schema.is_mutable and small:
            return func(*args, **kwargs)
        try:
            shapes = self._untraced(_shapes, func, args, kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if small:
                return func(*args, **kwargs)
            raise TraceFailed(f"operator {func.name()} has no shape rule: {str(error).splitlines()[0]}") from error
        if small and all(_bytes(t) <= REAL_BYTES for t in tree_iter(shapes) if isinstance(t, torch.Tensor)):
            return func(*args, **kwargs)
        return _results(func, shapes, args, kwargs)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _shapes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of `func` as tensors without storage."""
    return func(*tree_map(_on_meta, args), **tree_map(_on_meta, kwargs))


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _results(func: Any, shapes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`shapes` as hollow CPU tensors, except results that are one of the arguments."""
    returns = func._schema.returns
    if len(returns) == 1:
        return _result(func, returns[0], shapes, args, kwargs)
    if not returns:
        return None
    return tuple(_result(func, r, s, args, kwargs) for r, s in zip(returns, shapes, strict=True))


def _result(func: Any, returned: Any, shape: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if returned.alias_info is not None:
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.before_set == returned.alias_info.before_set:
                return args[place] if place < len(args) else kwargs[argument.name]
    return tree_map_only(torch.Tensor, _materialize, shape)


def _materialize(shape: torch.Tensor) -> torch.Tensor:
    # empty_like: asking for the shape itself would be traced
    result = torch.empty_like(shape, device="cpu")
    # Integers may be used as indices by a small operator that does run.
    return result if shape.is_floating_point() or shape.is_complex() else result.zero_()
