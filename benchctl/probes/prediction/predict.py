"""Traces a training step on a device that does not exist."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_iter, tree_map_only

from benchctl.errors import BenchctlError, TraceFailed
from benchctl.gpu_models import DEFAULT_GPU, GPUS, GpuModel
from benchctl.probes.hollow import empty_build
from benchctl.probes.prediction import attention as attention_rules
from benchctl.probes.prediction import autocast, fake_device
from benchctl.probes.prediction.recorder import Recorder
from benchctl.probes.prediction.trace import StepTrace
from benchctl.spec import Attention

STEPS = 2


class Step(Protocol):
    """One training step in the three parts that are told apart in a trace.

    Where the weights are no longer the model's parameters, `parameters()` gives the tensors that hold them.
    """

    def forward(self, batch: Any) -> torch.Tensor:
        """The loss, autocast included."""

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of every trainable parameter."""

    def update(self) -> None:
        """One optimizer step, after which gradients are dropped."""


@dataclass(frozen=True)
class TracedDevice:
    """The device that a step is traced for.

    On `cuda` tensors are fakes of `FAKE_DEVICE`, which follows CUDA's rules for attention and autocast. On `cpu` they are fakes of the
    CPU, which follows its own; that is what can be compared with real steps on any machine.
    """

    name: Literal["cuda", "cpu"] = "cuda"
    #: which GPU; not used on the CPU
    gpu: GpuModel = GPUS[DEFAULT_GPU]

    @property
    def tensor_device(self) -> str:
        """Device type of the tensors that the step sees."""
        return fake_device.FAKE_DEVICE if self.name == "cuda" else "cpu"


CUDA = TracedDevice("cuda")
CPU = TracedDevice("cpu")


def predict(
    build: Callable[[], nn.Module],
    make_step: Callable[[nn.Module], Step],
    make_batch: Callable[[], Any],
    *,
    attention: Attention,
    device: TracedDevice = CUDA,
    unknown_is_zero: bool = False,
) -> StepTrace:
    """Trace two training steps without running them.

    `build` is called on the CPU with large initialisers skipped; its parameters are then replaced by fakes on the traced device, and
    `make_step` and `make_batch` are called there. Give optimizers `foreach=True`, as CUDA has it by default, and autocast the
    tensors' own device type: `torch.autocast(tensor.device.type, dtype)`. A `torch.amp.GradScaler(device=...)` of that type works;
    its step is the one in which no gradient overflowed. A step whose `forward` runs under `torch.no_grad` and whose other parts do
    nothing gives the memory of inference.

    Args:
        build: makes the model on the CPU.
        make_step: makes optimizer and step for that model, in training mode.
        make_batch: makes one batch; its tensors are moved to the traced device.
        attention: which kernel scaled-dot-product attention runs; `eager` and `auto` leave it to the model and to torch's rules.
        device: what to trace for.
        unknown_is_zero: whether a value that is read and that nobody computed is 0, as where an engine asks whether anything overflowed;
            an error otherwise.

    Raises:
        TraceFailed: with the reason in one line.
    """
    try:
        with _tracing(attention, device, unknown_is_zero) as (recorder, policy):
            _run(build, make_step, make_batch, recorder, device)
            return StepTrace(device.name, tuple(recorder.storages), tuple(recorder.events), dict(policy.used), recorder.operators)
    except BenchctlError:
        raise
    except Exception as error:
        detail = str(error).strip().splitlines() or [""]
        raise TraceFailed(f"the step cannot be traced: {type(error).__name__}: {detail[0][:300]}") from error


class _NoDevice(FakeTensorMode):
    """Fakes whose device is never asked for memory: `torch.tensor(1.0, device=...)` is made on the CPU and its move is faked."""

    avoid_device_init = True


@contextmanager
def _tracing(attention: Attention, device: TracedDevice, unknown_is_zero: bool) -> Iterator[tuple[Recorder, attention_rules.Policy]]:
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(_no_garbage_collection())
        stack.enter_context(_no_tracebacks())
        if device.name == "cuda":
            fake_device.register()
        else:
            stack.enter_context(_cpu_attention(attention))
        policy = stack.enter_context(attention_rules.policy(attention, device.gpu))
        autocast.cache.clear()
        stack.callback(autocast.cache.clear)
        gpu = device.gpu if device.name == "cuda" else None
        yield Recorder(device.tensor_device, gpu, unknown_is_zero=unknown_is_zero), policy


def _run(
    build: Callable[[], nn.Module],
    make_step: Callable[[nn.Module], Step],
    make_batch: Callable[[], Any],
    recorder: Recorder,
    device: TracedDevice,
) -> None:
    model = empty_build(build)
    with _NoDevice(allow_non_fake_inputs=True):
        _replace_tensors(model, device.tensor_device)
        model.train()
        recorder.add(model.parameters(), "parameters")
        recorder.add(model.buffers(), "buffers")
        recorder.add(_plain_tensors(model), "buffers")
        with torch.device(device.tensor_device):
            batch = tree_map_only(torch.Tensor, lambda t: t.to(device.tensor_device), make_batch())
        recorder.add((leaf for leaf in tree_iter(batch) if isinstance(leaf, torch.Tensor)), "inputs")
        with recorder:
            step = make_step(model)
            # engines put weights elsewhere
            recorder.add(getattr(step, "parameters", model.parameters)(), "parameters")
            for number in range(1, STEPS + 1):
                with recorder.during(number, "forward"):
                    loss = step.forward(batch)
                with recorder.during(number, "backward"):
                    step.backward(loss)
                recorder.add((p.grad for p in model.parameters() if p.grad is not None), "gradients")
                with recorder.during(number, "update"):
                    step.update()
                del loss


def _replace_tensors(model: nn.Module, device: str) -> None:
    """Put a fake in the place of every parameter and buffer. What was shared stays shared."""
    fakes: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in fakes:
            copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            fakes[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
        return fakes[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)  # type: ignore[assignment]


def _plain_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors that modules keep as plain attributes. They stay on the CPU when a model moves, and count when it does not."""
    return (value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Tensor))


def _cpu_attention(attention: Attention) -> AbstractContextManager[Any]:
    """The choice of CPU kernel that torch makes works on fakes too; `math` and `flash` narrow it as they do in a real step."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if attention == "efficient":
        raise TraceFailed("attention 'efficient' does not exist on the CPU", fix="use 'sdpa', 'math' or 'flash'")
    if attention in ("math", "flash"):
        return sdpa_kernel(SDPBackend.MATH if attention == "math" else SDPBackend.FLASH_ATTENTION)
    return nullcontext()


@contextmanager
def _no_tracebacks() -> Iterator[None]:
    """Keep torch from logging a traceback for every shape error; the error itself carries the reason."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Cycles that hold tensors are collected at arbitrary times; here never, so that a trace does not depend on what ran before."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
