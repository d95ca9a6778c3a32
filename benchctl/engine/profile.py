"""What a cell costs: counted and predicted without executing anything, and measured where it is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchctl.engine import models, rank_memory
from benchctl.engine.step import Batch, TrainingStep, autocast
from benchctl.errors import TraceFailed
from benchctl.gpu_models import DEFAULT_GPU, GPUS
from benchctl.probes import clock, flops, memory, training_flops
from benchctl.probes.hollow import empty_build
from benchctl.probes.prediction import CALIBRATION, Step, StepTrace, TracedDevice, fake_device, predict
from benchctl.record import Measurement, Outcome
from benchctl.spec import Cell

#: two steps: optimizer state is made in the first, and is there for all of the second
STEPS = 2
LATENCY_WARMUP = 3
LATENCY_REPEATS = 20

Notes = dict[str, Any]


class InferenceStep:
    """A forward pass without gradients, in the shape of a training step: what an evaluate cell needs."""

    def __init__(self, model: nn.Module, cell: Cell) -> None:
        self._model = model.eval()
        self._cell = cell
        self._device_type = next(model.parameters()).device.type

    def forward(self, batch: Batch) -> Tensor:
        """Logits."""
        with torch.no_grad(), autocast(self._cell.precision, self._device_type):
            logits: Tensor = self._model(*batch[0])
        return logits

    def backward(self, loss: Tensor) -> None:
        """Nothing to do."""

    def update(self) -> None:
        """Nothing to do."""


def example(cell: Cell, batch_size: int, draw: Callable[..., Tensor] = torch.zeros) -> Batch:
    """Inputs and labels of the cell's shape. What is counted or predicted does not depend on the values; what is timed does."""
    shapes = models.model_spec(cell).config.input_shapes(cell.shape)
    inputs = tuple(draw(batch_size, *shape) for shape in shapes)
    return inputs, torch.zeros(batch_size, cell.num_classes) if cell.targets else torch.arange(batch_size) % cell.num_classes


def make_step(cell: Cell, model: nn.Module) -> Step:
    """What a step of the cell does in one process, as it is really done."""
    return InferenceStep(model, cell) if cell.task == "evaluate" else TrainingStep(model, cell.recipe, cell.precision, cell.objective)


def traced_step(cell: Cell, model: nn.Module, micro_batch: int) -> Step:
    """The same of one of the ranks of the cell's launch, which have so many clips at once, where no rank is."""
    if cell.task == "evaluate" or cell.launch is None:
        return make_step(cell, model)
    if cell.launch.engine == "deepspeed":
        return rank_memory.deepspeed_step(model, cell, micro_batch)
    made = rank_memory.DataParallelTraced if cell.launch.ranks > 1 else rank_memory.AccumulatingTraced
    return made(model, cell, micro_batch)


def prepare() -> None:
    """Make the process ready for any number of counts and predictions, in any order.

    autograd makes its queues, one a device, at the first backward pass: a device that is made known later has none.
    """
    with suppress(TraceFailed):  # a prediction will say it
        fake_device.register()


def count(cell: Cell) -> tuple[list[Measurement], Notes]:
    """Parameters, MACs and FLOPs of one clip, one view. Nothing is executed."""
    countable = _countable(cell)
    model = empty_build(lambda: models.build(countable, pretrained=False))
    notes: Notes = {**models.notes(cell, model)}
    total, trainable = flops.parameters(model)
    found = [Measurement(metric="params", value=total), Measurement(metric="trainable_params", value=trainable)]
    if "flops" in cell.measure or cell.task != "profile":
        counted = flops.count(model, example(cell, 1)[0])
        found += [
            Measurement(metric="macs", value=counted.macs, kind="all"),
            Measurement(metric="macs", value=counted.macs_without_attention, kind="without_attention"),
            Measurement(metric="macs", value=counted.macs_without_correlation, kind="without_correlation"),
            Measurement(metric="macs", value=counted.macs_without_flow, kind="without_flow"),
            Measurement(metric="macs", value=counted.macs_windowed, kind="windowed"),
            Measurement(metric="flops", value=counted.flops),
            Measurement(metric="uncounted_operators", value=sum(counted.uncounted.values())),
        ]
        if counted.uncounted:
            notes["uncounted_operators"] = dict(counted.uncounted)
    if cell.task in ("pretrain", "train"):
        found += count_step(cell)
    return found, notes


def count_step(cell: Cell) -> list[Measurement]:
    """Operations of one training step of the cell's batch; the reason instead of a value where they cannot be counted."""
    countable = _countable(cell)
    model = empty_build(lambda: models.build(countable, pretrained=False))
    try:
        counted = training_flops.count(
            lambda: TrainingStep(model, cell.recipe, "fp32", cell.objective), example(countable, cell.shape.batch_size)
        )
    except TraceFailed as failed:
        return [Measurement(metric="train_step_flops", value=None, kind=kind, reason=str(failed)) for kind in ("executed", "algorithmic")]
    return [
        Measurement(metric="train_step_flops", value=counted.executed, kind="executed"),
        Measurement(metric="train_step_flops", value=counted.algorithmic, kind="algorithmic"),
    ]


def _countable(cell: Cell) -> Cell:
    """A CUDA-only attention kernel multiplies the same numbers as the plain one, which can be counted here."""
    return cell.model_copy(update={"attention": "math"}) if cell.attention in ("efficient", "flash") else cell


def predict_memory(cell: Cell) -> tuple[list[Measurement], Notes, str | None]:
    """Peak CUDA memory of a step, without a GPU; and, where it does not fit under the cell's cap, the reason.

    Where the step cannot be traced, the measurements hold the reason instead of a value.
    """
    launch = cell.launch
    if launch is None:
        return _predict_memory(cell, cell.shape.batch_size)
    if launch.engine == "deepspeed":
        try:
            answer = rank_memory.in_own_process(cell)
        except TraceFailed as failed:
            return _unpredicted(str(failed)), {}, None
        return [Measurement.model_validate(one) for one in answer["measurements"]], answer["notes"], answer["reason"]
    return predict_rank(cell)


def predict_rank(cell: Cell) -> tuple[list[Measurement], Notes, str | None]:
    """The same of one of the ranks that a launch makes; of DeepSpeed only in a process of its own: see `rank_memory`."""
    launch = cell.launch
    assert launch is not None, "ranks are of a launch"
    answer = None
    about = f"predicted memory is of one of {launch.ranks} ranks"
    if launch.ranks > 1:
        about += "; memory of ranks was compared with CPU processes only, not with GPUs"
    for micro_batch in launch.micro_batches(cell.shape.batch_size):
        found, notes, reason = _predict_memory(cell, micro_batch)
        answer = found, {**notes, "per_rank": about, "micro_batch": micro_batch}, reason
        if reason is None:
            break
    assert answer is not None, "a launch has a micro-batch"
    return answer


def _unpredicted(reason: str) -> list[Measurement]:
    return [
        Measurement(metric="peak_memory_bytes", value=None, kind=kind, reason=reason, source="predicted", device="cuda")
        for kind in ("allocated", "reserved")
    ]


def _predict_memory(cell: Cell, clips: int) -> tuple[list[Measurement], Notes, str | None]:
    """The same for forward passes of so many clips."""
    gpu = cell.gpu or DEFAULT_GPU
    predicted: dict[str, Any] = {"source": "predicted", "device": "cuda"}
    try:
        trace: StepTrace = predict(
            lambda: models.build(cell, pretrained=False),
            lambda model: traced_step(cell, model, clips),
            lambda: example(cell, clips),
            attention=cell.attention,
            device=TracedDevice("cuda", GPUS[gpu]),
            unknown_is_zero=cell.launch is not None and cell.launch.engine == "deepspeed",
        )
    except TraceFailed as failed:
        return _unpredicted(str(failed)), {}, None
    peak = trace.peak(cap_bytes=cell.memory_cap_bytes)
    found = [
        Measurement(metric="peak_memory_bytes", value=peak.allocated_bytes, kind="allocated", **predicted),
        Measurement(metric="peak_memory_bytes", value=peak.reserved_bytes, kind="reserved", **predicted),
        *(
            Measurement(metric="memory_at_peak_bytes", value=size, kind=category, **predicted)
            for category, size in peak.by_category.items()
        ),
    ]
    notes: Notes = {"prediction_calibration": f"for the {gpu}; {CALIBRATION}", "predicted_gpu": gpu}
    if trace.attention_kernels:
        notes["attention_kernels"] = dict(trace.attention_kernels)
    if peak.fits or cell.memory_cap_bytes is None or peak.reserved_bytes is None:
        return found, notes, None
    needs, cap = peak.reserved_bytes / 2**30, cell.memory_cap_bytes / 2**30
    return found, notes, f"predicted: needs {needs:,.1f} GiB reserved, the cap is {cap:g} GiB"


def measure(cell: Cell, device: Literal["cpu", "cuda"]) -> tuple[list[Measurement], Notes]:
    """Execute the cell: peak memory of its steps, and the latency of a forward pass.

    Raises:
        RuntimeError: torch ran out of memory, among others.
    """
    found: list[Measurement] = []
    model = models.build(cell).to(device)
    notes: Notes = {**models.notes(cell, model)}
    # random: matrix units are faster on zeros than on anything real
    drawn, labels = example(cell, cell.shape.batch_size, torch.randn)
    inputs = tuple(tensor.to(device) for tensor in drawn)
    if "memory" in cell.measure:
        found += _memory(cell, model, (inputs, labels.to(device)), device)
    if "latency" in cell.measure:
        found += _latency(cell, model, inputs, device)
    return found, notes


def _memory(cell: Cell, model: nn.Module, batch: Batch, device: Literal["cpu", "cuda"]) -> list[Measurement]:
    model.train()
    held: list[Step] = []

    def run() -> None:
        # optimizer state belongs to the peak, so the optimizer is made inside
        step = make_step(cell, model)
        held.append(step)
        for _ in range(STEPS):
            step.backward(loss := step.forward(batch))
            step.update()
            del loss

    if device == "cuda":
        with _capped(cell):
            peaks = memory.cuda_peaks(run)
        readings: tuple[memory.Peak, ...] = (peaks.allocated, peaks.reserved, peaks.device)
    else:
        exact = memory.live_bytes(run, held=(model, *batch[0], batch[1]))
        # a second run for the resident set: the profiler that the first one needs takes memory itself
        held.clear()
        readings = (exact, memory.resident_bytes(run))
    return [Measurement(metric="peak_memory_bytes", value=r.value_bytes, kind=r.kind, device=r.device, reason=r.reason) for r in readings]


def _latency(cell: Cell, model: nn.Module, inputs: tuple[Tensor, ...], device: Literal["cpu", "cuda"]) -> list[Measurement]:
    model.eval()

    def forward() -> None:
        with torch.no_grad(), autocast(cell.precision, device):
            model(*inputs)

    synchronize: Callable[[], object] | None = torch.cuda.synchronize if device == "cuda" else None
    timing = clock.time_calls(forward, warmup=LATENCY_WARMUP, repeats=LATENCY_REPEATS, synchronize=synchronize)
    samples = enumerate(timing.samples_seconds)
    return [
        *(Measurement(metric="latency_seconds", value=getattr(timing, kind), kind=kind, device=device) for kind in ("p50", "p90", "p99")),
        *(Measurement(metric="latency_seconds", value=seconds, kind="sample", device=device, rep=rep) for rep, seconds in samples),
        Measurement(metric="throughput_clips_per_second", value=cell.shape.batch_size / timing.p50, device=device),
    ]


@contextmanager
def _capped(cell: Cell) -> Iterator[None]:
    """The cell's cap, where the GPU is larger; a smaller one caps by itself."""
    total = torch.cuda.get_device_properties(0).total_memory
    cap = cell.memory_cap_bytes
    with memory.cuda_memory_cap(cap if cap is not None and cap < total else None):
        yield


def out_of_memory(error: BaseException, cell: Cell, device: str) -> tuple[Outcome, str]:
    """The outcome of a cell whose execution raised `error`, and the reason."""
    if not memory.is_out_of_memory(error):
        raise error
    if device == "cpu":
        return Outcome.OOM, "out of memory on this CPU"
    total = torch.cuda.get_device_properties(0).total_memory
    cap = min(cell.memory_cap_bytes or total, total)
    return Outcome.OOM, f"measured: does not fit into {cap / 2**30:,.1f} GiB on {torch.cuda.get_device_name(0)}"
