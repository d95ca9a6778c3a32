"""The two kinds of work that a worker does for a cell: predict, executing nothing, and execute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchctl.data.loading import LoadSettings
from benchctl.engine import checkpoint, models, profile
from benchctl.engine.budget import allowance
from benchctl.engine.evaluate import Evaluation, clip_notes, evaluate, reconstruct
from benchctl.engine.step import TrainingStep
from benchctl.engine.train import Judged, Progress, Stop, Training
from benchctl.errors import BenchctlError
from benchctl.metrics import top_k
from benchctl.record import CellResult, Measurement, Outcome
from benchctl.spec import Cell

#: file of a cell's scores in its folder
SCORES = "scores.npz"


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


def predict(cell: Cell) -> CellResult:
    """Count and predict. The outcome is `oom` where the prediction does not fit under the cap, `failed` where nothing could be traced."""
    profile.prepare()
    measurements, notes = profile.count(cell)
    reason = None
    if "memory" in cell.measure or cell.task != "profile":
        predicted, more, reason = profile.predict_memory(cell)
        measurements += predicted
        notes.update(more)
        failed = next((m.reason for m in predicted if m.value is None), None)
        if failed:
            return _result(cell, Outcome.FAILED, failed, measurements, notes, "none")
    return _result(cell, Outcome.OOM if reason else Outcome.OK, reason, measurements, notes, "none")


def execute(cell: Cell, settings: WorkSettings, stop: Stop) -> CellResult:
    """Measure, train or evaluate the cell on `settings.device`."""
    try:
        if cell.task == "profile":
            measurements, notes = profile.measure(cell, settings.device)
            return _result(cell, Outcome.OK, None, measurements, notes, settings.device)
        return _evaluate(cell, settings) if cell.task == "evaluate" else _train(cell, settings, stop)
    except (RuntimeError, MemoryError) as error:
        outcome, reason = profile.out_of_memory(error, cell, settings.device)
        return _result(cell, outcome, reason, [], {}, settings.device)


def _train(cell: Cell, settings: WorkSettings, stop: Stop) -> CellResult:
    if settings.checkpoint_folder is None:
        raise BenchctlError("a cell that learns needs a folder for its checkpoint")
    step_flops, counted = _step_flops(cell, settings)
    allowed = allowance(cell, step_flops, _v100_factor(settings.device), metered=False)
    clips = models.load_clips(cell, settings.data_root)
    model = models.build(cell)
    notes: dict[str, Any] = {**models.notes(cell, model)}
    if settings.checkpoint is not None:
        notes["weights"] = models.start(model, cell, settings.checkpoint)
    step = TrainingStep(model.to(settings.device), cell.recipe, cell.precision, cell.objective)
    load = models.load_settings(cell, clips)
    notes |= _sources(load)

    def judge() -> dict[str, float]:
        found = evaluate(model, clips, load, cell.precision).measurements(settings.device)
        return {m.metric: m.value for m in found if m.metric in ("top1", "top5") and m.value is not None}

    judged = judge if cell.objective == "classes" else None
    ending = Training(cell, step, clips, load, allowed, settings.checkpoint_folder, judged).run(stop)
    progress = ending.progress
    measurements = [*counted, *progress.measurements(cell, allowed, settings.device), *_flops_used(progress, counted)]
    unreadable = dict(progress.unreadable)
    if ending.stop_reason:
        notes["stop_reason"] = ending.stop_reason
    if ending.outcome is Outcome.OK and cell.task == "pretrain":
        measurements.append(reconstruct(model, clips, load, cell.precision))
    elif ending.outcome is Outcome.OK:
        evaluation = evaluate(model, clips, load, cell.precision)
        measurements += [*_judged(evaluation, settings, notes), *_to_target(cell, progress, evaluation, step_flops)]
        unreadable |= evaluation.unreadable
    notes |= clip_notes(unreadable, clips.missing)
    result = _result(cell, ending.outcome, ending.reason, measurements, notes, settings.device)
    return result.model_copy(update={"checkpoint": str(ending.checkpoint) if ending.checkpoint else None})


def _step_flops(cell: Cell, settings: WorkSettings) -> tuple[int | None, list[Measurement]]:
    """Executed operations of one step, and what is recorded of them."""
    counted = settings.step_flops if settings.step_flops is not None else profile.count_step(cell)
    executed = next(m.value for m in counted if m.kind == "executed")
    return None if executed is None else int(executed), counted


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


def _v100_factor(device: str) -> float | str:
    """V100 seconds in a second of this device, by the table that the budget names; or why nobody knows."""
    if device == "cpu":
        return "this is a CPU, whose time is never normalised to a GPU"
    return "no table of factors"


def _evaluate(cell: Cell, settings: WorkSettings) -> CellResult:
    clips = models.load_clips(cell, settings.data_root)
    model = models.build(cell, pretrained=settings.checkpoint is None and cell.pretrained)
    notes: dict[str, Any] = {**models.notes(cell, model)}
    if settings.checkpoint is not None:
        content = checkpoint.load(settings.checkpoint)
        try:
            model.load_state_dict(content["model"])
        except RuntimeError as problem:
            what = " ".join(str(problem).split())[:200]
            raise BenchctlError(
                f"does not fit '{cell.method}': {what}", where=str(settings.checkpoint), fix="name the checkpoint of this preset"
            ) from None
        notes["weights"] = f"checkpoint of cell {content['cell']} after {content['step']} steps"
    load = models.load_settings(cell, clips)
    evaluation = evaluate(model.to(settings.device), clips, load, cell.precision)
    measurements = _judged(evaluation, settings, notes)
    notes |= _sources(load)
    notes |= clip_notes(evaluation.unreadable, clips.missing)
    return _result(cell, Outcome.OK, None, measurements, notes, settings.device)


def _sources(load: LoadSettings) -> dict[str, Any]:
    """Where flow and tracks that came with the clips are from."""
    found = {"flow": load.flow, "tracks": load.tracks}
    return {name: source.description for name, source in found.items() if source}


def _judged(evaluation: Evaluation, settings: WorkSettings, notes: dict[str, Any]) -> list[Measurement]:
    """How good it is; the scores of all clips are kept beside the checkpoint, and `notes` say where."""
    if settings.checkpoint_folder is not None:
        file = settings.checkpoint_folder / SCORES
        evaluation.save(file)
        notes["scores"] = str(file)
    unreadable = Measurement(metric="unreadable_clips", value=len(evaluation.unreadable), kind="test")
    return [*evaluation.measurements(settings.device), unreadable]


def _result(
    cell: Cell, outcome: Outcome, reason: str | None, measurements: list[Measurement], notes: dict[str, Any], device: str
) -> CellResult:
    return CellResult(
        cell_id=cell.id,
        outcome=outcome,
        reason=reason,
        measurements=tuple(measurements),
        notes=notes,
        device=device,
        started_at="",
        seconds=0,
    )
