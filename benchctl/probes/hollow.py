"""Models and forward passes of any size without their arithmetic and without their memory.

A hollow tensor is a CPU tensor with a shape and a storage that is never written: the system gives it no page. Everything that looks
at a model from outside (parameter counts, `torch.jit` tracing, memory prediction) sees an ordinary model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map, tree_map_only

from benchctl.errors import TraceFailed

aten = torch.ops.aten

#: an operator none of whose storages is larger than this runs for real: schedules, position indices and shape arithmetic
REAL_BYTES = 16 * 1024


def empty_build(build: Callable[[], nn.Module]) -> nn.Module:
    """The model that `build` makes on the CPU, with the content of large tensors never computed. Leaves the random state as it was."""
    with torch.random.fork_rng(devices=[]), Hollow():
        return build()


class Hollow(TorchDispatchMode):
    """Gives operators on large tensors a result of the right shape, stride and type, and runs only views and small ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run or imitate `func`.

        Raises:
            TraceFailed: `func` has no shape rule and its inputs are too large to run it.
        """
        kwargs = kwargs or {}
        graph: Any = torch._C._get_tracing_state()
        if graph is None:
            return self._run(func, args, kwargs)
        if func is aten.convolution.default:
            # torch.jit records not `convolution` but the `_convolution` that its kernel would call.
            with _traced_into(graph), self:
                return aten._convolution.default(*args, False, False, True, True)
        with _traced_into(None):
            return self._run(func, args, kwargs)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.is_view or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        small = _small((args, kwargs))
        if func._schema.is_mutable and small:
            return func(*args, **kwargs)
        try:
            results = _imitate(func, args, kwargs)
        except RuntimeError as error:
            # Small enough to run: what reads values does work then, and what is wrong says so itself.
            if small:
                return func(*args, **kwargs)
            if isinstance(error, NotImplementedError):
                raise TraceFailed(f"operator {func.name()} has no shape rule: its result depends on values") from error
            raise
        if small and _small(results):
            return func(*args, **kwargs)
        return _with_arguments(func, results, args, kwargs)


@contextmanager
def _traced_into(graph: Any) -> Iterator[None]:
    """Let torch.jit record what is called here into `graph`, or nothing where it is None.

    Most operators reach a dispatch mode with tracing paused; those that torch.jit handles by hand (convolutions, assignments to
    slices) do not, and then every shape that is read in Python becomes a tensor and part of the graph. The tracer's dispatch key
    is excluded under a mode, and torch refuses to switch tracing while it is.
    """
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(include, exclude.remove("Tracer")):
        before = torch._C._get_tracing_state()
        torch._C._set_tracing_state(graph)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch._C._set_tracing_state(before)  # type: ignore[attr-defined]


def _small(tree: Any) -> bool:
    return all(t.untyped_storage().nbytes() <= REAL_BYTES for t in tree_iter(tree) if isinstance(t, torch.Tensor))


def _imitate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of `func` as hollow CPU tensors."""
    if func is aten._convolution.default:
        # the one that torch.jit records; before 2.12 it has no shape rule of its own, and its last arguments choose a kernel only
        func, args = aten.convolution.default, args[:9]
    shapes = func(*tree_map(_on_meta, args), **tree_map(_on_meta, kwargs))
    return tree_map_only(torch.Tensor, _hollow, shapes)


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _hollow(shape: torch.Tensor) -> torch.Tensor:
    result = torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype, device="cpu")
    # Integers may be used as indices by a small operator that does run.
    return result if shape.is_floating_point() or shape.is_complex() else result.zero_()


def _with_arguments(func: Any, results: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`results`, in which those that `func` returns as one of its arguments, written in place, are that argument."""
    returns = func._schema.returns
    if len(returns) == 1:
        return _argument(func, returns[0], args, kwargs, results)
    if not returns:
        return None
    return tuple(_argument(func, returned, args, kwargs, result) for returned, result in zip(returns, results, strict=True))


def _argument(func: Any, returned: Any, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Any) -> Any:
    if returned.alias_info is None:
        return otherwise
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.before_set == returned.alias_info.before_set:
            return args[place] if place < len(args) else kwargs[argument.name]
    return otherwise
