"""The two kinds of work that a worker does for a cell: predict, executing nothing, and execute."""

from __future__ import annotations

from typing import Any

from benchctl.engine import checkpoint, models, profile
from benchctl.engine.evaluate import clip_notes, evaluate, recorded
from benchctl.engine.learning import WorkSettings, learn
from benchctl.engine.train import Stop
from benchctl.errors import BenchctlError
from benchctl.record import CellResult, Measurement, Outcome
from benchctl.spec import Cell


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
        return _evaluate(cell, settings) if cell.task == "evaluate" else _learn(cell, settings, stop)
    except (RuntimeError, MemoryError) as error:
        outcome, reason = profile.out_of_memory(error, cell, settings.device)
        return _result(cell, outcome, reason, [], {}, settings.device)


def _learn(cell: Cell, settings: WorkSettings, stop: Stop) -> CellResult:
    learned = learn(cell, settings, stop)
    result = _result(cell, learned.ending.outcome, learned.ending.reason, learned.measurements, learned.notes, settings.device)
    return result.model_copy(update={"checkpoint": str(file) if (file := learned.ending.checkpoint) else None})


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
    notes["weights_sha256"] = checkpoint.digest(model)
    load = models.load_settings(cell, clips)
    evaluation = evaluate(model.to(settings.device), clips, load, cell.precision)
    measurements, judged = recorded(evaluation, settings.checkpoint_folder, settings.device)
    notes |= judged | models.sources(load)
    notes |= clip_notes(evaluation.unreadable, clips.missing)
    return _result(cell, Outcome.OK, None, measurements, notes, settings.device)


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
