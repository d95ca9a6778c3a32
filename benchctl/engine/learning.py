"""A cell that learns: its budget counted or metered, its training, what it scores, and what all of it took."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchctl.budget import Budget
from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import LoadSettings
from benchctl.engine import models, profile
from benchctl.engine.budget import Allowance, Used, allowance
from benchctl.engine.communication import communication
from benchctl.engine.engines import make_engine
from benchctl.engine.evaluate import Evaluation, clip_notes, evaluate, reconstruct, recorded
from benchctl.engine.ranks import Ranks, joined
from benchctl.engine.search import Searched, Tried, forget, search
from benchctl.engine.step import Batch, TrainingStep
from benchctl.engine.synchronised_norm import whole_batch_norm
from benchctl.engine.train import Ending, Judged, Meter, Progress, Stop, Training
from benchctl.errors import BenchctlError, DeviceMissing
from benchctl.gpu_rates import Factor, factor
from benchctl.metrics import top_k
from benchctl.probes.energy import GpuWatch, cuda_watch
from benchctl.probes.gpu_time import gpu_time_measurements
from benchctl.probes.nvml import OpenGpu
from benchctl.recipe import Recipe
from benchctl.record import Measurement, Outcome
from benchctl.spec import Cell


@dataclass(frozen=True)
class WorkSettings:
    """Where a cell is executed, and the files that it needs."""

    device: Literal["cpu", "cuda"]
    data_root: Path | None = None
    #: where a cell that learns keeps its checkpoint, and any cell that is judged the scores of its clips
    checkpoint_folder: Path | None = None
    #: what an evaluate cell evaluates, and a train cell starts from; None: the published weights
    checkpoint: Path | None = None
    #: what was counted of a training step beforehand; None: it is counted here
    step_flops: list[Measurement] | None = None
    #: a checkpoint to go on from, of a cell that trains the same with other processes; None: the cell's own alone
    resume: Path | None = None
    #: clips of one forward pass of one rank; None: as the cell's launch says, else all
    micro_batch: int | None = None


@dataclass(frozen=True)
class Learned:
    """What came of it."""

    ending: Ending
    measurements: list[Measurement]
    notes: dict[str, Any]


def learn(cell: Cell, settings: WorkSettings, stop: Stop) -> Learned:
    """Train `cell`, or pre-train it, for its budget, and judge it.

    Raises:
        BenchctlError: its data, its start or its budget cannot be had.
        RuntimeError: torch ran out of memory, among others.
    """
    if settings.checkpoint_folder is None:
        raise BenchctlError("a cell that learns needs a folder for its checkpoint")
    counted = settings.step_flops if settings.step_flops is not None else profile.count_step(cell)
    with joined(cell.launch, settings.device) as ranks, whole_batch_norm(ranks), _watched(settings.device) as devices:
        return _learn(cell, settings, _School(settings, stop, counted, devices, ranks))


def _learn(cell: Cell, settings: WorkSettings, school: _School) -> Learned:
    assert settings.checkpoint_folder is not None, "a cell that learns has one"
    counted, devices, ranks = school.counted, school.devices, school.ranks
    clips = models.load_clips(cell, settings.data_root)
    searched = search(cell, clips, settings.checkpoint_folder, school.attempt) if cell.search else Searched()
    if searched.stopped is not None:
        return Learned(searched.stopped, [*counted, *searched.measurements(settings.device)], {})
    recipe = cell.recipe.changed(searched.best) if searched.trials else cell.recipe
    taught = school.teach(cell, recipe, clips, settings.checkpoint_folder, searched.used)
    ending, step, load, notes = taught.ending, taught.step, taught.load, taught.notes
    progress = ending.progress
    measurements = [*counted, *progress.measurements(cell, taught.allowance, settings.device), *_flops_used(progress, counted)]
    measurements += [*_taken(progress, devices, ranks, notes), *searched.measurements(settings.device)]
    measurements += [_throughput(cell, progress.used, settings.device), *_of_ranks(cell, ranks, settings.device)]
    if searched.trials:
        notes["searched"] = searched.note(cell)
    unreadable = dict(progress.unreadable)
    if ending.stop_reason:
        notes["stop_reason"] = ending.stop_reason
    if ending.outcome is Outcome.OK and cell.task == "pretrain":
        measurements.append(reconstruct(step.judged, clips, load, cell.precision, ranks, together=step.forward_together))
    elif ending.outcome is Outcome.OK:
        evaluation = evaluate(step.judged, clips, load, cell.precision, ranks, together=step.forward_together)
        scored, judged = recorded(evaluation, settings.checkpoint_folder if ranks.first else None, settings.device)
        measurements += [*scored, *_to_target(cell, progress, evaluation, taught.allowance.step_flops)]
        notes |= judged
        unreadable |= evaluation.unreadable
    if ending.outcome is Outcome.OK and searched.trials and ranks.first:
        forget(settings.checkpoint_folder)
    if ending.outcome is Outcome.OK and not ranks.alone:
        # behind all that is kept of the training: its steps change the weights
        measurements.append(communication(step, school.example(cell), ranks))
    step.close()
    return Learned(ending, measurements, notes | clip_notes(unreadable, clips.missing))


@dataclass(frozen=True)
class _Taught:
    """A model that learned, and how."""

    ending: Ending
    step: TrainingStep
    load: LoadSettings
    allowance: Allowance
    notes: dict[str, Any]


@dataclass(frozen=True)
class _School:
    """What all trainings of one cell have in common."""

    settings: WorkSettings
    stop: Stop
    counted: list[Measurement]
    devices: _Devices
    ranks: Ranks

    def teach(self, cell: Cell, recipe: Recipe, clips: ClipSet, folder: Path, before: Used, *, on_the_way: bool = True) -> _Taught:
        """Train `cell` by `recipe` from its start, or go on from the checkpoint in `folder`."""
        device, checkpoint, ranks = self.settings.device, self.settings.checkpoint, self.ranks
        allowed = _allowance(cell, self.counted, self.devices, ranks)
        model = models.build(cell)
        notes: dict[str, Any] = {**models.notes(cell, model), **_launched(cell, ranks, device)}
        if checkpoint is not None:
            notes["weights"] = models.start(model, cell, checkpoint)
        micro_batch = _micro_batch(cell, self.settings)
        step = make_engine(cell, model.to(device), recipe, ranks, micro_batch)
        if not ranks.alone:
            # the same weights, and other dropout
            torch.manual_seed(cell.seed + ranks.rank)
        load = replace(models.load_settings(cell.model_copy(update={"recipe": recipe}), clips), pinned=device == "cuda")
        notes |= models.sources(load)
        judge = _Judge(cell, step, clips, load, ranks) if cell.objective == "classes" and on_the_way else None
        share = _share_of(load, ranks, cell)
        training = Training(cell, step, clips, share, allowed, folder, judge, self.devices.meter, before, ranks, micro_batch)
        if folder == self.settings.checkpoint_folder:
            # a trial of a search has another budget
            training.resume = self.settings.resume
        return _Taught(training.run(self.stop), step, load, allowed, notes)

    def example(self, cell: Cell) -> list[Batch]:
        """One step of a rank, of numbers that mean nothing."""
        size = _micro_batch(cell, self.settings)
        inputs, labels = profile.example(cell, size, torch.randn)
        device = self.settings.device
        batch = tuple(tensor.to(device) for tensor in inputs), labels.to(device)
        return [batch] * (cell.shape.batch_size // self.ranks.world // size)

    def attempt(self, trial: Cell, clips: ClipSet, folder: Path) -> Tried:
        """Train `trial` and judge it by `clips`."""
        taught = self.teach(trial, trial.recipe, clips, folder, Used(), on_the_way=False)
        if taught.ending.outcome is not Outcome.OK:
            return Tried(taught.ending)
        step = taught.step
        evaluation = evaluate(step.judged, clips, taught.load, trial.precision, self.ranks, together=step.forward_together)
        step.close()
        return Tried(taught.ending, top_k.accuracy(evaluation.scores, evaluation.labels, 1))


@dataclass(frozen=True)
class _Judge:
    """Top-1 and top-5 of the model as it is."""

    cell: Cell
    step: TrainingStep
    clips: ClipSet
    load: LoadSettings
    ranks: Ranks

    def __call__(self) -> dict[str, float]:
        step, precision = self.step, self.cell.precision
        evaluation = evaluate(step.judged, self.clips, self.load, precision, self.ranks, together=step.forward_together)
        found = evaluation.measurements(step.device_type)
        return {m.metric: m.value for m in found if m.metric in ("top1", "top5") and m.value is not None}


@dataclass(frozen=True)
class _Devices:
    """What a training runs on, and how that is watched."""

    #: as CUDA gives it; None: a CPU
    gpu_name: str | None = None
    watch: GpuWatch | None = None
    #: None: its energy cannot be read
    meter: Meter | None = None


@contextmanager
def _watched(device: str) -> Iterator[_Devices]:
    if device == "cpu":
        yield _Devices()
        return
    current = torch.cuda.current_device()
    with OpenGpu(str(torch.cuda.get_device_properties(current).uuid)) as gpu, cuda_watch() as watch:
        try:
            gpu.energy_millijoules()
            meter: Meter | None = lambda: gpu.energy_millijoules() / 1e3  # noqa: E731
        except DeviceMissing:
            meter = None
        yield _Devices(torch.cuda.get_device_name(current), watch, meter)


def _micro_batch(cell: Cell, settings: WorkSettings) -> int:
    """Clips of one forward pass of one rank."""
    if cell.launch is None:
        return cell.shape.batch_size
    # `auto` is what was predicted to fit; where nothing was predicted, the least
    return settings.micro_batch or cell.launch.micro_batches(cell.shape.batch_size)[-1]


def _share_of(load: LoadSettings, ranks: Ranks, cell: Cell) -> LoadSettings:
    """How this rank loads its share of each batch."""
    here = cell.launch.gpus if cell.launch else 1
    shape = load.shape.model_copy(update={"batch_size": load.shape.batch_size // ranks.world})
    return replace(load, shape=shape, rank=ranks.rank, ranks=ranks.world, kept_bytes=load.kept_bytes // here)


def _launched(cell: Cell, ranks: Ranks, device: str) -> dict[str, Any]:
    """What a reader must know of the processes that trained."""
    if cell.launch is None:
        return {}
    where = "a GPU each" if device == "cuda" else "CPU processes, connected by gloo: no GPU was used"
    found: dict[str, Any] = {"launch": f"{cell.launch}; {ranks.world} rank{'s' if ranks.world > 1 else ''}, {where}"}
    return found


def _throughput(cell: Cell, used: Used, device: Literal["cpu", "cuda"]) -> Measurement:
    """Clips a second of all ranks together, since the first steps, in which kernels are chosen and workers start."""
    steps, seconds = used.steps - used.warmup_steps, used.seconds - used.warmup_seconds
    known = used.warmup_steps > 0 and steps > 0 and seconds > 0
    return Measurement(
        metric="throughput_clips_per_second",
        value=steps * cell.shape.batch_size / seconds if known else None,
        kind="training",
        device=device,
        reason=None if known else "too few steps: the first ones do not count",
    )


def _of_ranks(cell: Cell, ranks: Ranks, device: Literal["cpu", "cuda"]) -> list[Measurement]:
    """How many processes trained, and the most memory that one of them had."""
    if cell.launch is None:
        return []
    # of the whole process, whose interpreter and libraries are most of it where models are small
    kinds = {"process": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}
    if device == "cuda":
        kinds = {"allocated": float(torch.cuda.max_memory_allocated()), "reserved": float(torch.cuda.max_memory_reserved())}
    most = [max(column) for column in zip(*ranks.exchange(*kinds.values()))]
    return [
        Measurement(metric="ranks", value=ranks.world, device=device),
        # the most that one rank had
        *(Measurement(metric="peak_memory_bytes", value=int(size), kind=kind, device=device) for kind, size in zip(kinds, most)),
    ]


def _allowance(cell: Cell, counted: list[Measurement], devices: _Devices, ranks: Ranks) -> Allowance:
    executed = next(m.value for m in counted if m.kind == "executed")
    assert cell.budget is not None, "a cell that learns has a budget"
    rate = _v100_factor(cell.budget, devices.gpu_name, ranks.world)
    return allowance(cell, None if executed is None else int(executed), rate, metered=devices.meter is not None)


def _v100_factor(budget: Budget, gpu_name: str | None, gpus: int) -> float | str:
    """V100 seconds in a second of `gpus` such devices, by the table that the budget names; or why nobody knows."""
    if gpu_name is None:
        return "this is a CPU, whose time is never normalised to a GPU"
    known = factor(gpu_name, budget.gpu_table)
    return known.value * gpus if isinstance(known, Factor) else known.reason


def _taken(progress: Progress, devices: _Devices, ranks: Ranks, notes: dict[str, Any]) -> list[Measurement]:
    """Time and energy of the training; judging it took more, which is not in them."""
    used = progress.used
    found, more = gpu_time_measurements(
        used.seconds, ranks.world if devices.gpu_name else 0, devices.gpu_name, cpu_seconds=used.cpu_seconds
    )
    notes |= more
    if devices.watch is None:
        return [*found, Measurement(metric="energy_joules", value=None, device="cpu", reason="trained on a CPU")]
    activity = devices.watch.activity
    notes |= activity.notes()
    # of the whole block, in which the model was judged too; energy is summed over the steps alone
    watched = [m for m in activity.measurements() if m.metric != "energy_joules"]
    reason = None if used.joules is not None else activity.energy_joules.reason or "not metered"
    return [*found, *watched, Measurement(metric="energy_joules", value=used.joules, device="cuda", reason=reason)]


def _flops_used(progress: Progress, counted: list[Measurement]) -> list[Measurement]:
    """Operations of the whole training, both ways of counting."""
    steps = progress.used.steps
    return [m.model_copy(update={"metric": "train_flops", "value": None if m.value is None else m.value * steps}) for m in counted]


def _to_target(cell: Cell, progress: Progress, evaluation: Evaluation, step_flops: int | None) -> list[Measurement]:
    """What it took to come to the accuracy that the budget names, as finely as it was judged."""
    target = cell.budget.target_top1 if cell.budget else None
    if target is None or cell.objective != "classes":
        return []
    final = Judged(1.0, {"top1": top_k.accuracy(evaluation.scores, evaluation.labels, 1)}, progress.used.steps, progress.used.seconds)
    first = next((j for j in (*progress.judged, final) if j.scores["top1"] >= target), None)
    if first is None:
        reason = f"{100 * target:g} % was not reached"
        return [Measurement(metric=metric, value=None, reason=reason) for metric in ("seconds_to_target", "flops_to_target")]
    flops = None if step_flops is None else first.steps * step_flops
    return [
        Measurement(metric="seconds_to_target", value=first.seconds),
        Measurement(metric="flops_to_target", value=flops, reason=None if flops is not None else "operations could not be counted"),
    ]
