"""A cell that learns: its budget counted or metered, its training, what it scores, and what all of it took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import LoadSettings
from benchctl.engine import models, profile
from benchctl.engine.budget import Allowance, Used, allowance
from benchctl.engine.evaluate import Evaluation, clip_notes, evaluate, reconstruct, recorded
from benchctl.engine.search import Searched, Tried, forget, search
from benchctl.engine.step import TrainingStep
from benchctl.engine.train import Ending, Judged, Meter, Progress, Stop, Training
from benchctl.errors import BenchctlError, DeviceMissing
from benchctl.gpu_rates import Factor, factor
from benchctl.metrics import top_k
from benchctl.probes.energy import GpuWatch, cuda_watch
from benchctl.probes.gpu_time import gpu_time_measurements
from benchctl.probes.nvml import OpenGpu
from benchctl.record import Measurement, Outcome
from benchctl.spec import Budget, Cell, Recipe

#: GPUs of one process
GPUS = 1


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
    with _watched(settings.device) as devices:
        clips = models.load_clips(cell, settings.data_root)
        school = _School(settings, stop, counted, devices)
        searched = search(cell, clips, settings.checkpoint_folder, school.attempt) if cell.search else Searched()
        if searched.stopped is not None:
            return Learned(searched.stopped, [*counted, *searched.measurements(settings.device)], {})
        recipe = cell.recipe.changed(searched.best) if searched.trials else cell.recipe
        taught = school.teach(cell, recipe, clips, settings.checkpoint_folder, searched.used)
    ending, model, load, notes = taught.ending, taught.model, taught.load, taught.notes
    progress = ending.progress
    measurements = [*counted, *progress.measurements(cell, taught.allowance, settings.device), *_flops_used(progress, counted)]
    measurements += [*_taken(progress, devices, notes), *searched.measurements(settings.device)]
    if searched.trials:
        notes["searched"] = searched.note(cell)
    unreadable = dict(progress.unreadable)
    if ending.stop_reason:
        notes["stop_reason"] = ending.stop_reason
    if ending.outcome is Outcome.OK and cell.task == "pretrain":
        measurements.append(reconstruct(model, clips, load, cell.precision))
    elif ending.outcome is Outcome.OK:
        evaluation = evaluate(model, clips, load, cell.precision)
        scored, judged = recorded(evaluation, settings.checkpoint_folder, settings.device)
        measurements += [*scored, *_to_target(cell, progress, evaluation, taught.allowance.step_flops)]
        notes |= judged
        unreadable |= evaluation.unreadable
    if ending.outcome is Outcome.OK and searched.trials:
        forget(settings.checkpoint_folder)
    return Learned(ending, measurements, notes | clip_notes(unreadable, clips.missing))


@dataclass(frozen=True)
class _Taught:
    """A model that learned, and how."""

    ending: Ending
    model: nn.Module
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

    def teach(self, cell: Cell, recipe: Recipe, clips: ClipSet, folder: Path, before: Used, *, on_the_way: bool = True) -> _Taught:
        """Train `cell` by `recipe` from its start, or go on from the checkpoint in `folder`."""
        device, checkpoint = self.settings.device, self.settings.checkpoint
        allowed = _allowance(cell, self.counted, self.devices)
        model = models.build(cell)
        notes: dict[str, Any] = {**models.notes(cell, model)}
        if checkpoint is not None:
            notes["weights"] = models.start(model, cell, checkpoint)
        step = TrainingStep(model.to(device), recipe, cell.precision, cell.objective)
        load = replace(models.load_settings(cell.model_copy(update={"recipe": recipe}), clips), pinned=device == "cuda")
        notes |= models.sources(load)
        judge = _Judge(cell, step, clips, load) if cell.objective == "classes" and on_the_way else None
        training = Training(cell, step, clips, load, allowed, folder, judge, self.devices.meter, before)
        return _Taught(training.run(self.stop), model, load, allowed, notes)

    def attempt(self, trial: Cell, clips: ClipSet, folder: Path) -> Tried:
        """Train `trial` and judge it by `clips`."""
        taught = self.teach(trial, trial.recipe, clips, folder, Used(), on_the_way=False)
        if taught.ending.outcome is not Outcome.OK:
            return Tried(taught.ending)
        evaluation = evaluate(taught.model, clips, taught.load, trial.precision)
        return Tried(taught.ending, top_k.accuracy(evaluation.scores, evaluation.labels, 1))


@dataclass(frozen=True)
class _Judge:
    """Top-1 and top-5 of the model as it is."""

    cell: Cell
    step: TrainingStep
    clips: ClipSet
    load: LoadSettings

    def __call__(self) -> dict[str, float]:
        found = evaluate(self.step.model, self.clips, self.load, self.cell.precision).measurements(self.step.device_type)
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
    with OpenGpu(str(torch.cuda.get_device_properties(0).uuid)) as gpu, cuda_watch() as watch:
        try:
            gpu.energy_millijoules()
            meter: Meter | None = lambda: gpu.energy_millijoules() / 1e3  # noqa: E731
        except DeviceMissing:
            meter = None
        yield _Devices(torch.cuda.get_device_name(0), watch, meter)


def _allowance(cell: Cell, counted: list[Measurement], devices: _Devices) -> Allowance:
    executed = next(m.value for m in counted if m.kind == "executed")
    assert cell.budget is not None, "a cell that learns has a budget"
    rate = _v100_factor(cell.budget, devices.gpu_name)
    return allowance(cell, None if executed is None else int(executed), rate, metered=devices.meter is not None)


def _v100_factor(budget: Budget, gpu_name: str | None) -> float | str:
    """V100 seconds in a second of this device, by the table that the budget names; or why nobody knows."""
    if gpu_name is None:
        return "this is a CPU, whose time is never normalised to a GPU"
    known = factor(gpu_name, budget.gpu_table)
    return known.value * GPUS if isinstance(known, Factor) else known.reason


def _taken(progress: Progress, devices: _Devices, notes: dict[str, Any]) -> list[Measurement]:
    """Time and energy of the training; judging it took more, which is not in them."""
    used = progress.used
    found, more = gpu_time_measurements(used.seconds, GPUS if devices.gpu_name else 0, devices.gpu_name, cpu_seconds=used.cpu_seconds)
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
