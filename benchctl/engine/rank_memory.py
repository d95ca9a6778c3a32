"""What one rank of a DeepSpeed training allocates, told without its partners and without a GPU.

DeepSpeed's own code runs, on tensors that have shapes and no memory, in a process group whose other members do not exist: torch's `fake`
backend answers every collective at once. So the stage, the number of ranks and the offload are those that were asked for, and what is
counted is what this release of DeepSpeed does, its buckets and copies included.

DeepSpeed keeps its device and its groups for as long as a process lives. A prediction therefore has a process of its own:
`python -m benchctl.engine.rank_memory`, which reads a cell as JSON and writes what `benchctl.engine.profile` says of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchctl.engine.step import AUTOCAST, Batch, TrainingStep
from benchctl.errors import TraceFailed
from benchctl.probes.prediction import FAKE_DEVICE, Step
from benchctl.spec import Cell

if TYPE_CHECKING:
    from benchctl.engine.deepspeed import DeepSpeedStep

#: micro-batches of a traced step, where there are several: what the first one leaves is there during the second, and during all others
PASSES = 2
#: most that DistributedDataParallel sends at once
BUCKET_BYTES = 25 * 2**20


def in_own_process(cell: Cell) -> dict[str, Any]:
    """What `main` writes of a cell that is trained by DeepSpeed.

    Raises:
        TraceFailed: DeepSpeed is not installed, or the process ended without an answer.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise TraceFailed(
            "memory of a rank is predicted with DeepSpeed's code, which is not installed", fix="pip install 'benchctl[deepspeed]'"
        )
    ended = subprocess.run(
        [sys.executable, "-m", __spec__.name],
        input=cell.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in _OF_A_RANK},
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise TraceFailed(f"a rank cannot be traced: {last[:300]}")
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


#: environment variables by which a process knows that it is a rank: this one is none
_OF_A_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "BENCHCTL_BEAT")


@contextmanager
def alone_in_a_world(ranks: int) -> Iterator[None]:
    """This process as the first of so many ranks of which no other exists. Once in a process's life."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ.update(RANK="0", WORLD_SIZE=str(ranks), LOCAL_RANK="0", DS_ACCELERATOR="cpu")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def deepspeed_step(model: nn.Module, cell: Cell, micro_batch: int) -> Step:
    """A step of DeepSpeed on the traced device that `model` lies on, within `alone_in_a_world`."""
    from deepspeed.runtime.zero import partition_parameters, partitioned_param_coordinator, stage3

    from benchctl.engine.deepspeed import DeepSpeedStep

    launch = cell.launch
    assert launch is not None, "asked for by a launch"
    if next(model.parameters()).device.type == FAKE_DEVICE:
        _use_fake_device()
    # each rank compares what it does with the first one's values, and the first one's are not here
    for module in (partition_parameters, partitioned_param_coordinator, stage3):
        module.assert_ints_same_as_other_ranks = lambda _: None
    if launch.half == "weights":
        _cast(model, AUTOCAST[cell.precision])
    # it moves the model to where it is already, which parameters without memory do not survive
    for name in ("to", "float", "half", "bfloat16"):
        setattr(model, name, lambda *_, **__: model)
    passes = _passes(cell, micro_batch)
    step = DeepSpeedStep(
        model,
        cell.recipe,
        cell.precision,
        cell.objective,
        launch=launch,
        batch_size=passes * micro_batch * launch.ranks,
        micro_batch=micro_batch,
    )
    return _DeepSpeedTraced(step, passes)


def _passes(cell: Cell, micro_batch: int) -> int:
    """Micro-batches of a traced step."""
    assert cell.launch is not None, "ranks are of a launch"
    return min(PASSES, cell.shape.batch_size // cell.launch.ranks // micro_batch)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """As `model.to(dtype)` does to tensors that have memory."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter, dtype=dtype), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = torch.empty_like(buffer, dtype=dtype)


class _DeepSpeedTraced:
    """A step in three parts."""

    def __init__(self, step: DeepSpeedStep, passes: int) -> None:
        self._step = step
        self._passes = passes

    def parameters(self) -> Iterable[Tensor]:
        """What this rank holds of the weights."""
        return (getattr(parameter, "ds_tensor", parameter) for parameter in self._step.model.parameters())

    def forward(self, batch: Batch) -> Tensor:
        """Loss of the last micro-batch, after the others' gradients."""
        for _ in range(self._passes - 1):
            self.backward(self._step.forward(batch))
            self.update()
        return self._step.forward(batch)

    def backward(self, loss: Tensor) -> None:
        """Gradients, reduced as soon as DeepSpeed does."""
        self._step.engine.backward(loss)

    def update(self) -> None:
        """The optimizer's step, with the last micro-batch."""
        self._step.engine.step()


class AccumulatingTraced(TrainingStep):
    """One process whose gradients of several micro-batches are added up."""

    def __init__(self, model: nn.Module, cell: Cell, micro_batch: int) -> None:
        super().__init__(model, cell.recipe, cell.precision, cell.objective)
        self._passes = _passes(cell, micro_batch)
        #: whether the present micro-batch is the step's last
        self._last = False

    def forward(self, batch: Batch) -> Tensor:
        """Loss of the last micro-batch, after the others' gradients."""
        self._last = False
        for _ in range(self._passes - 1):
            super().backward(super().forward(batch))
        self._last = True
        return super().forward(batch)


class DataParallelTraced(AccumulatingTraced):
    """A rank of DistributedDataParallel: gradients move into buckets, which are there for as long as the training lasts.

    Those of all micro-batches but the last stay where they are until they are sent with its own.
    """

    def __init__(self, model: nn.Module, cell: Cell, micro_batch: int) -> None:
        super().__init__(model, cell, micro_batch)
        for parameter, place in list(_buckets([p for p in model.parameters() if p.requires_grad])):
            parameter.register_post_accumulate_grad_hook(self._moves_to(place))

    def _moves_to(self, place: Tensor) -> Callable[[Tensor], None]:
        def move(parameter: Tensor) -> None:
            if self._last:
                parameter.grad = place

        return move


def _buckets(parameters: list[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each with its place in a bucket, from the last one on, as gradients come."""
    waiting: list[nn.Parameter] = []
    for index, parameter in enumerate(reversed(parameters)):
        waiting.append(parameter)
        if sum(p.nbytes for p in waiting) >= BUCKET_BYTES or index == len(parameters) - 1:
            flat = torch.empty(sum(p.numel() for p in waiting), dtype=parameter.dtype, device=parameter.device)
            parts = flat.split([p.numel() for p in waiting])
            yield from ((p, part.view(p.shape)) for p, part in zip(waiting, parts, strict=True))
            waiting = []


def _use_fake_device() -> None:
    """Let DeepSpeed take the traced device for the one that it runs on."""
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class FakeAccelerator(CPU_Accelerator):
        """A CPU's, which has no streams to wait for, by the name of the traced device."""

        def device_name(self, device_index: int | None = None) -> str:  # noqa: ARG002
            return FAKE_DEVICE

        def current_device_name(self) -> str:
            return FAKE_DEVICE

        def is_fp16_supported(self) -> bool:
            return True

        def on_accelerator(self, tensor: Tensor) -> bool:
            return tensor.device.type == FAKE_DEVICE

    set_accelerator(FakeAccelerator())


def main() -> None:
    """Read a cell, write what is predicted of a rank of it."""
    from benchctl.engine import profile

    cell = Cell.model_validate_json(sys.stdin.read())
    assert cell.launch is not None, "asked for by a launch"
    # DeepSpeed prints
    answer_to, sys.stdout = sys.stdout, sys.stderr
    with alone_in_a_world(cell.launch.ranks):
        found, notes, reason = profile.predict_rank(cell)
    answer = {"measurements": [one.model_dump(mode="json") for one in found], "notes": notes, "reason": reason}
    print(json.dumps(answer), file=answer_to)


if __name__ == "__main__":
    main()
