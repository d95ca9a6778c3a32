"""Records the allocations of a running step: one `Storage` per tensor storage, from its first operator to its last reference."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchctl.errors import TraceFailed
from benchctl.gpu_models import GpuModel
from benchctl.probes.prediction import autocast, cpu_workspaces, cuda_workspaces
from benchctl.probes.prediction.layouts import as_kernels_return
from benchctl.probes.prediction.trace import Category, Phase, Storage

aten = torch.ops.aten

# Before the first step the optimizer's own tensors are made; what an update allocates and drops again counts with its state.
_CATEGORY_BY_PHASE: dict[Phase, Category] = {
    "build": "optimizer",
    "forward": "activations",
    "backward": "activations",
    "update": "optimizer",
}


class Recorder(TorchDispatchMode):
    """Sees every operator below autograd and autocast, and every storage of `device_type` that one of them returns.

    It also records what kernels allocate for themselves: by CUDA's rules for `gpu`, or by the CPU's where that is None.
    """

    def __init__(self, device_type: str, gpu: GpuModel | None, *, unknown_is_zero: bool = False) -> None:
        super().__init__()
        self._unknown_is_zero = unknown_is_zero
        self.storages: list[Storage] = []
        self.events: list[int] = []
        self.operators = 0
        self._device_type = device_type
        self._gpu = gpu
        # what was allocated once for each thread, and stays
        self._thread_workspaces: set[tuple[int, str]] = set()
        self._step = 0
        self._phase: Phase = "build"
        # storage address -> its index and a reference whose callback is the free
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._overflow_flags: set[int] = set()
        self._accumulation: tuple[int, int] | None = None

    @contextmanager
    def during(self, step: int, phase: Phase) -> Iterator[None]:
        """What is allocated in this block belongs to `phase` of `step`."""
        before = self._step, self._phase
        self._step, self._phase = step, phase
        try:
            yield
        finally:
            self._step, self._phase = before

    def add(self, tensors: Iterable[torch.Tensor], category: Category) -> None:
        """Record tensors as `category`, whether they are new or known under another one."""
        for tensor in tensors:
            self._see(tensor, "")
            known = self._live.get(tensor.untyped_storage()._cdata) if tensor.device.type == self._device_type else None
            if known is not None:
                self.storages[known[0]].category = category

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run `func`, recording its results and its kernel's workspace."""
        self.operators += 1
        autocast.cache.drop_stale()
        if func is aten._local_scalar_dense.default:
            return self._value(func, args)
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default:
            self._overflow_flags.add(args[1].untyped_storage()._cdata)
        self._keep_thread_workspaces(func, args)
        result = as_kernels_return(func, args, func(*args, **(kwargs or {})))
        self._see_all(result, func)
        # kernels take what they need once their results are there
        for phase in self._workspaces(func, args):
            taken = [self._allocate(size, "workspace", str(func.name())) for size in phase]
            self.events.extend(~index for index in reversed(taken))
        self._accumulation = self._accumulated(func, args, result)
        return result

    def _value(self, func: Any, args: tuple[Any, ...]) -> Any:
        # A gradient scaler reads whether a gradient overflowed. None did: that is the step whose update runs.
        if args[0].untyped_storage()._cdata in self._overflow_flags:
            return 0.0
        try:
            return func(*args)
        except Exception as error:
            if self._unknown_is_zero:
                return 0.0 if args[0].is_floating_point() else False if args[0].dtype is torch.bool else 0
            raise TraceFailed(
                "the step reads a tensor's value, which prediction does not compute", fix="keep .item(), .tolist() and bool() out of it"
            ) from error

    def _workspaces(self, func: Any, args: tuple[Any, ...]) -> tuple[tuple[int, ...], ...]:
        if self._gpu is None:
            size = cpu_workspaces.kernel_workspace(func, args)
            return ((size,),) if size else ()
        return cuda_workspaces.kernel_workspaces(func, args, self._gpu)

    def _keep_thread_workspaces(self, func: Any, args: tuple[Any, ...]) -> None:
        # One handle per thread: the one that runs forward, and the one on which autograd runs backward.
        if self._gpu is None:
            return
        for name, size in cuda_workspaces.thread_workspaces(func, args, self._gpu):
            if (key := (threading.get_ident(), name)) not in self._thread_workspaces:
                self._thread_workspaces.add(key)
                self._allocate(size, "workspace", name)

    def _accumulated(self, func: Any, args: tuple[Any, ...], result: Any) -> tuple[int, int] | None:
        """Addresses of a gradient and of its sum with another, where autograd adds without keeping either."""
        if func is not aten.add.Tensor or self._phase != "backward" or torch.is_grad_enabled():
            return None
        first, second = args[:2]
        if not isinstance(second, torch.Tensor) or not first.shape == second.shape == result.shape or first.dtype != result.dtype:
            return None
        if first.untyped_storage().nbytes() != result.untyped_storage().nbytes():
            return None
        return first.untyped_storage()._cdata, result.untyped_storage()._cdata

    def _see_all(self, result: Any, func: Any) -> None:
        if isinstance(result, torch.Tensor):
            self._see(result, func)
        elif isinstance(result, list | tuple):
            for item in result:
                self._see_all(item, func)

    def _see(self, tensor: torch.Tensor, func: Any) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        size = storage.nbytes()
        if address in self._live:
            known = self._live[address][0]
            if self.storages[known].size_bytes == size:
                return
            # resized in place
            self.events.append(~known)
        if size == 0:
            self._live.pop(address, None)
            return
        name = func.name() if func else ""
        index = self._allocate(size, _CATEGORY_BY_PHASE[self._phase], name)
        self._live[address] = (index, weakref.ref(storage, partial(self._freed, address)))

    def _allocate(self, size: int, category: Category, operator: str) -> int:
        index = len(self.storages)
        self.storages.append(Storage(size, category, self._step, self._phase, operator))
        self.events.append(index)
        return index

    def _freed(self, address: int, _: object) -> None:
        self._overflow_flags.discard(address)
        index = self._live.pop(address)[0]
        if self._accumulation and self._accumulation[0] == address:
            total = self._accumulation[1]
            known = self._live.get(total)
            if known is not None and self.events[-1] == known[0]:
                # The gradient died as soon as it was added to: autograd adds in place then. It does not with fakes.
                self.events.pop()
                self._live[total] = (index, known[1])
                return
        self.events.append(~index)
