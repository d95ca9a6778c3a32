"""The accuracy table: what each training scored over its seeds, what it used, and whether that is what the others were given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.report.budgets import BUDGET_COLUMNS, budget_notes, budget_values, comparable, verdicts
from benchctl.report.costs import mean_correlations
from benchctl.report.footnotes import footnotes
from benchctl.report.over_seeds import COUNT_COLUMNS, QUIET_MEMORY_COLUMNS, Trained, mean_of, merged, over, read
from benchctl.report.table import NOT_RECORDED, Absent, Column, Selection, Table, Value
from benchctl.report.trainings import ENDING_COLUMNS, ONE_SEED, TRAINING_COLUMNS, Training, ending_values, training_values
from benchctl.statistics import Sample, sample

if TYPE_CHECKING:
    from benchctl.store.store import Store
    from benchctl.store.stored import Readings

TABLE = "accuracy of every training over its seeds, and whether the budgets are matched"

_SCORE_COLUMNS = (
    Column("seeds", "seeds"),
    # those that ended well and have an accuracy: the mean is over them
    Column("seeds_scored", "seeds\nscored", unlike="seeds"),
    Column("top1", "top-1\nmean", "fraction", show="%"),
    Column("top1_interval", "± 95 %\ninterval", "fraction", show="%"),
    Column("top1_deviation", "standard\ndeviation", "fraction", show="%"),
    Column("top1_min", "lowest top-1", "fraction", show="%", text="never"),
    Column("top1_max", "highest top-1", "fraction", show="%", text="never"),
    Column("above_floor", "above\nsingle frame", "fraction", show="%", text="present"),
    Column("top5", "top-5\nmean", "fraction", show="%", text="present"),
    Column("pearson_r", "Pearson r\nmean", "correlation", text="present"),
    Column("pearson_r_interval", "± 95 %\ninterval of r", "correlation", text="present"),
)
_SPENT_COLUMNS = (
    Column("steps", "steps", "count"),
    Column("train_seconds", "train\ntime", "seconds", show="s"),
    Column("train_flops", "train\nFLOPs", "count", show="T", text="present"),
    Column("train_flops_algorithmic", "algorithmic train FLOPs", "count", show="T", text="never"),
    Column("stall_fraction", "waited for\ndata", "fraction", show="%", text="present"),
    Column("seconds_to_target", "time to\ntarget", "seconds", show="s", text="present"),
    Column("flops_to_target", "FLOPs to\ntarget", "count", show="T", text="present"),
    Column("stop_reason", "stopped by", text="varying"),
    Column("pretraining", "weights brought along", text="never"),
)
_TO_TARGET = ("seconds_to_target", "flops_to_target")
_INTERVAL = "± is half the 95 % confidence interval of the mean over seeds, by Student's t"


def build(store: Store, selection: Selection) -> Table:
    """One row per training: cells that differ in their seed only; those that compare together, the best first.

    Means are over the seeds that ended well. Where seeds ended otherwise, the row says how many and how.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    trained = read(store, selection, ("pearson_r", *_TO_TARGET))
    said = verdicts(trained.of, trained.uses)
    floors = floor_of(trained)
    correlations = mean_correlations(trained.readings["pearson_r"])
    rows = []
    for i, training in enumerate(trained.of):
        learns_numbers = bool(training.content.get("targets"))
        r = over(training, correlations)
        rows.append(
            (
                *training_values(training),
                *_scored(training, trained.scores[i], learns_numbers),
                _above(trained, i, floors.get(i)),
                NOT_RECORDED if learns_numbers else trained.mean(training, "top5"),
                *_correlation(training, r, learns_numbers),
                *trained.counts(training),
                *budget_values(training, trained.uses[i], said[i]),
                *(trained.mean(training, column.name) for column in _SPENT_COLUMNS[:5]),
                *(_to_target(training, trained.readings[metric]) for metric in _TO_TARGET),
                _noted(training, "stop_reason"),
                _noted(training, "pretraining"),
                *trained.memory(training),
                *ending_values(training),
            )
        )
    counts = tuple(replace(column, text="never") if column.name == "params" else column for column in COUNT_COLUMNS)
    spent = (*_SPENT_COLUMNS, *QUIET_MEMORY_COLUMNS, *ENDING_COLUMNS)
    columns = (*TRAINING_COLUMNS, *_SCORE_COLUMNS, *counts, *BUDGET_COLUMNS, *spent)
    notes = (*trained.notes(), *_notes(trained, floors), *budget_notes(trained.of, trained.labels, said, trained.uses))
    return Table("accuracy", TABLE, columns, tuple(rows), (*notes, *footnotes(trained.shown, [()] * len(trained.shown))))


def floor_of(trained: Trained) -> dict[int, int]:
    """For each training that sees several frames, the place of the best that sees one, on the same data and budget.

    A floor is a training too, and is taught with the same share of the clips.
    """
    found = {}
    for budgets in comparable(trained.of).values():
        for places in budgets.values():
            single: dict[object, int] = {}
            for i in places:
                share, score = trained.of[i].content.get("train_fraction"), trained.scores[i]
                if trained.of[i].sees_one_frame and score:
                    best = trained.scores[single[share]] if share in single else None
                    if best is None or score.mean > best.mean:
                        single[share] = i
            for i in places:
                floor = single.get(trained.of[i].content.get("train_fraction"))
                if floor is not None and not trained.of[i].sees_one_frame:
                    found[i] = floor
    return found


def _scored(training: Training, score: Sample | None, learns_numbers: bool) -> tuple[Value, ...]:
    count = len(score.values) if score else 0
    if score is None:
        # what learns numbers has no top-1, however it ended
        missing = NOT_RECORDED if learns_numbers else training.missing
        return (len(training.cells), len(training.done) if learns_numbers else 0, *(missing,) * 5)
    return (len(training.cells), count, score.mean, *_spread(score), min(score.values), max(score.values))


def _spread(score: Sample) -> tuple[Value, Value]:
    """Half the interval of the mean, and the deviation."""
    width, deviation = score.half_width(), score.deviation
    return (ONE_SEED if width is None else width, ONE_SEED if deviation is None else deviation)


def _above(trained: Trained, place: int, floor: int | None) -> Value:
    score = trained.scores[place]
    base = trained.scores[floor] if floor is not None else None
    if trained.of[place].sees_one_frame:
        return Absent("single frame")
    return NOT_RECORDED if score is None or base is None else score.mean - base.mean


def _correlation(training: Training, r: Sequence[float], learns_numbers: bool) -> tuple[Value, Value]:
    if not r:
        missing = training.missing if learns_numbers else NOT_RECORDED
        return missing, missing
    return sample(r).mean, _spread(sample(r))[0]


def _to_target(training: Training, readings: Sequence[Readings]) -> Value:
    """The mean over seeds where all reached the target: a mean over only the fast ones would flatter."""
    values, reasons = merged(readings)
    reached = over(training, values)
    failed = [reasons[cell.result_id] for cell in training.done if cell.result_id in reasons]
    if not failed:
        return mean_of(reached, training)
    if not reached:
        return Absent("; ".join(dict.fromkeys(failed)))
    return Absent(f"reached by {len(reached)} of {len(training.done)} seeds")


def _noted(training: Training, key: str) -> Value:
    """What the seeds that ended well say about `key`, each thing once."""
    said = [cell.notes[key] for cell in training.done if cell.notes.get(key)]
    words = dict.fromkeys(each if isinstance(each, str) else _written(each) for each in said)
    return "; ".join(words) or training.missing


def _written(note: object) -> str:
    if isinstance(note, Mapping):
        return ", ".join(f"{key}: {value}" for key, value in note.items())
    return ", ".join(map(str, note)) if isinstance(note, list) else str(note)


def _notes(trained: Trained, floors: Mapping[int, int]) -> Iterator[str]:
    if any(score and len(score.values) > 1 for score in trained.scores):
        yield f"{_INTERVAL}."
    for floor in dict.fromkeys(floors.values()):
        score, training = trained.scores[floor], trained.of[floor]
        if score:
            seen = f"{training.variant} on {training.first.dataset} with {trained.uses[floor].given or 'no budget'}"
            yield f"Above single frame: over the best training that sees one frame ({seen}, {100 * score.mean:.2f} %)."
    for training, label in zip(trained.of, trained.labels):
        if len(training.done) < len(training.cells) and training.done:
            yield f"{label}: of {len(training.cells)} seeds, {training.ending}; the mean is over those that ended ok."
