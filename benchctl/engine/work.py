"""The two kinds of work that a worker does for a cell: predict, executing nothing, and execute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchctl.data.loading import LoadSettings
from benchctl.engine import checkpoint, models, profile
from benchctl.engine.evaluate import Evaluation, clip_notes, evaluate
from benchctl.engine.step import TrainingStep
from benchctl.engine.train import Stop, train
from benchctl.errors import BenchctlError
from benchctl.record import CellResult, Measurement, Outcome
from benchctl.spec import Cell


@dataclass(frozen=True)
class WorkSettings:
    """Where a cell is executed, and the files that it needs."""

    device: Literal["cpu", "cuda"]
    data_root: Path | None = None
    #: where a train cell keeps its checkpoint
    checkpoint_folder: Path | None = None
    #: what an evaluate cell evaluates; None: the published weights
    checkpoint: Path | None = None


def predict(cell: Cell) -> CellResult:
    """Count and predict. The outcome is `oom` where the prediction does not fit under the cap, `failed` where nothing could be traced."""
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
        return _train(cell, settings, stop) if cell.task == "train" else _evaluate(cell, settings)
    except (RuntimeError, MemoryError) as error:
        outcome, reason = profile.out_of_memory(error, cell, settings.device)
        return _result(cell, outcome, reason, [], {}, settings.device)


def _train(cell: Cell, settings: WorkSettings, stop: Stop) -> CellResult:
    if settings.checkpoint_folder is None:
        raise BenchctlError("a train cell needs a folder for its checkpoint")
    clips = models.load_clips(cell, settings.data_root)
    model = models.build(cell).to(settings.device)
    notes: dict[str, Any] = {**models.notes(cell, model)}
    training = TrainingStep(model, cell.recipe, cell.precision)
    load = models.load_settings(cell)
    notes |= _flow_note(load)
    ending = train(cell, training, clips, load, settings.checkpoint_folder, stop)
    measurements = list(ending.progress.measurements(cell, settings.device))
    unreadable = dict(ending.progress.unreadable)
    if ending.outcome is Outcome.OK:
        evaluation = evaluate(model, clips, load, cell.precision)
        measurements += _accuracy(evaluation, settings.device)
        unreadable |= evaluation.unreadable
    notes |= clip_notes(unreadable, clips.missing)
    result = _result(cell, ending.outcome, ending.reason, measurements, notes, settings.device)
    return result.model_copy(update={"checkpoint": str(ending.checkpoint) if ending.checkpoint else None})


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
    load = models.load_settings(cell)
    evaluation = evaluate(model.to(settings.device), clips, load, cell.precision)
    notes |= _flow_note(load)
    notes |= clip_notes(evaluation.unreadable, clips.missing)
    return _result(cell, Outcome.OK, None, _accuracy(evaluation, settings.device), notes, settings.device)


def _flow_note(load: LoadSettings) -> dict[str, Any]:
    """Where flow that came with the clips is from."""
    return {"flow": load.flow.description} if load.flow else {}


def _accuracy(evaluation: Evaluation, device: str) -> list[Measurement]:
    unreadable = Measurement(metric="unreadable_clips", value=len(evaluation.unreadable), kind="test")
    return [*evaluation.measurements(device), unreadable]


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
