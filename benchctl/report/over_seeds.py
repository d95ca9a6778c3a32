"""Numbers of trainings: means over the seeds that ended well, and a word wherever there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchctl.report.budgets import COUNTED, Use, budget_notes, use_of, verdicts
from benchctl.report.costs import COST_COLUMNS, Costs
from benchctl.report.readings import MEMORY_COLUMNS, memory_values, of_cell, preference
from benchctl.report.table import NOT_RECORDED, UNAVAILABLE, Absent, Selection, Value, selected
from benchctl.report.trainings import Training, names, trainings
from benchctl.statistics import Sample, sample

if TYPE_CHECKING:
    from benchctl.store.reading import Snapshot
    from benchctl.store.store import Store
    from benchctl.store.stored import CellRow, Readings

#: what a training costs that its profile says as well: counts, which no device and no batch changes
COUNT_COLUMNS = COST_COLUMNS[:5]
#: name here -> metric and kind
_SCALARS = {
    "top1": ("top1", ""),
    "top5": ("top5", ""),
    "budget_used": ("budget_used", ""),
    "steps": ("steps", ""),
    "samples": ("samples", ""),
    "frames_seen": ("frames_seen", ""),
    "train_seconds": ("train_seconds", ""),
    "train_flops": ("train_flops", "executed"),
    "train_flops_algorithmic": ("train_flops", "algorithmic"),
    "stall_fraction": ("stall_fraction", ""),
}
_NOTHING_TRAINED = "No selected cell trains: only trainings have rows here"


@dataclass(frozen=True)
class Trained:
    """The trainings of a selection, the best first among those that compare, and what they scored, used and cost."""

    cells: tuple[CellRow, ...]
    of: tuple[Training, ...]
    labels: tuple[str, ...]
    uses: tuple[Use, ...]
    scores: tuple[Sample | None, ...]
    #: the measured readings of the metrics that were asked for
    readings: Mapping[str, list[Readings]]
    #: names of the GPUs of the machine, by run
    gpus: Mapping[str, tuple[str, ...]]
    _numbers: Mapping[str, Mapping[int, float]]
    _costs: Mapping[str, tuple[Value, ...]]
    _memory: tuple[Readings, ...]

    def values(self, training: Training, name: str) -> list[float]:
        """One number for each seed that ended well and has it."""
        return over(training, self._numbers[name])

    def mean(self, training: Training, name: str) -> Value:
        """Their mean."""
        return mean_of(self.values(training, name), training)

    def counts(self, training: Training) -> tuple[Value, ...]:
        """The values of `COUNT_COLUMNS`."""
        return self._costs[training.first.cell_id]

    def memory(self, training: Training) -> tuple[Value, ...]:
        """The values of `MEMORY_COLUMNS`, of the seed that took most."""
        found: list[tuple[float, CellRow, Readings]] = []
        for reading in self._memory:
            found = [(reading.values[cell.result_id], cell, reading) for cell in training.cells if cell.result_id in reading.values]
            if found:
                break
        if found:
            _, cell, reading = max(found, key=lambda each: each[0])
            return memory_values(cell, reading)
        missing = training.missing
        reading_of = of_cell(training.first, self._memory)[:1]
        value = UNAVAILABLE if training.done and reading_of else missing
        return (missing, missing, missing, value, training.first.memory_cap_bytes or NOT_RECORDED)

    def notes(self) -> Iterator[str]:
        """What a reader must know where there is nothing to show."""
        if not self.of:
            yield f"{_NOTHING_TRAINED}."

    @property
    def shown(self) -> list[CellRow]:
        """The cells of all trainings."""
        return [cell for training in self.of for cell in training.cells]


def read(store: Store, selection: Selection, metrics: Sequence[str] = ()) -> Trained:
    """What the selected trainings left behind, with the readings of `metrics`.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with selected(store, selection) as (snapshot, cells):
        return trained_of(snapshot, cells, metrics)


def trained_of(snapshot: Snapshot, cells: Sequence[CellRow], metrics: Sequence[str]) -> Trained:
    """The trainings among `cells`, with the readings of `metrics`."""
    from benchctl.store.reading import Scalar

    contents = snapshot.contents() if any(cell.task == "train" for cell in cells) else {}
    of = trainings(cells, contents)
    numbers: dict[str, dict[int, float]] = {name: {} for name in _SCALARS}
    if of:
        for result, values in snapshot.scalars([Scalar(metric, (kind,)) for metric, kind in _SCALARS.values()]).items():
            for name, value in zip(_SCALARS, values):
                if value is not None:
                    numbers[name][result] = value
    uses = [use_of(each, numbers["budget_used"], numbers.get(_match_on(each), {})) for each in of]
    tops = [over(each, numbers["top1"]) for each in of]
    scores = [sample(values) if values else None for values in tops]
    labels = names(of)
    order = sorted(range(len(of)), key=lambda i: _order(of[i], scores[i], labels[i]))
    found = snapshot.readings_of(["peak_memory_bytes", *metrics]) if of else {}
    return Trained(
        cells=tuple(cells),
        of=tuple(of[i] for i in order),
        labels=tuple(labels[i] for i in order),
        uses=tuple(uses[i] for i in order),
        scores=tuple(scores[i] for i in order),
        readings={metric: [each for each in found.get(metric, ()) if each.source == "measured"] for metric in metrics},
        gpus=snapshot.gpus() if of else {},
        _numbers=numbers,
        _costs=_counts(snapshot, of, cells, contents),
        _memory=tuple(sorted(found.get("peak_memory_bytes", ()), key=preference)),
    )


def unmatched(snapshot: Snapshot, cells: Sequence[CellRow]) -> Iterator[str]:
    """For tables of single cells: what budgets of the trainings among `cells` differ by, where they do."""
    if not any(cell.task == "train" and cell.result_id is not None for cell in cells):
        return
    found = trained_of(snapshot, cells, ())
    yield from budget_notes(found.of, found.labels, verdicts(found.of, found.uses), found.uses)


def _match_on(training: Training) -> str:
    """The metric that counts what is matched; empty: none does by its own name."""
    match_on = str((training.content.get("budget") or {}).get("match_on", ""))
    return match_on if match_on in COUNTED else ""


def _order(training: Training, score: Sample | None, label: str) -> tuple[object, ...]:
    """Trainings that compare together, the best first, those without an accuracy last."""
    budget = training.content.get("budget") or {}
    return (
        *training.data,
        str(budget.get("match_on")),
        budget.get("amount", 0),
        -score.mean if score else 1,
        label,
        training.first.cell_id,
    )


def _counts(
    snapshot: Snapshot, of: Sequence[Training], cells: Sequence[CellRow], contents: Mapping[str, str]
) -> dict[str, tuple[Value, ...]]:
    """The values of `COUNT_COLUMNS` by the first cell of each training: its own, else those of a selected profile of the same model."""
    if not of:
        return {}
    costs = Costs(snapshot)
    size = len(COUNT_COLUMNS)
    own = {each.first.cell_id: [costs.of(cell)[0][:size] for cell in each.cells] for each in of}
    profiles: dict[str, list[tuple[Value, ...]]] = {}
    # params, trainable params and MACs; without flow is of few methods, and FLOPs are counted with MACs
    if any(all(isinstance(each[i], Absent) for each in found) for found in own.values() for i in (0, 1, 2)):
        for cell in cells:
            if cell.task == "profile" and cell.result_id is not None:
                profiles.setdefault(_model(json.loads(contents[cell.cell_id])), []).append(costs.of(cell)[0][:size])
    made = {}
    for training in of:
        found = [*own[training.first.cell_id], *profiles.get(_model(training.content), ())]
        made[training.first.cell_id] = tuple(_first(values, training.missing) for values in zip(*found))
    return made


def _first(values: Sequence[Value], missing: Absent) -> Value:
    return next((value for value in values if not isinstance(value, Absent)), missing)


def _model(content: Mapping[str, Any]) -> str:
    """What counts depend on."""
    shape = content["shape"]
    parts = [content["method"], content["config"], shape["frames"], shape["resolution"], content["pad"], content["num_classes"]]
    return json.dumps([*parts, content["recipe"].get("train_only", "all")], sort_keys=True)


def over(training: Training, numbers: Mapping[int, float]) -> list[float]:
    """Those of `numbers`, which are by result id, that are of its seeds that ended well."""
    ids = [cell.result_id for cell in training.done if cell.result_id is not None]
    return [numbers[number] for number in ids if number in numbers]


def mean_of(values: Sequence[float], training: Training) -> Value:
    """The mean of `values`, which `training` left; a count stays one where it can."""
    if not values:
        return training.missing
    mean = sample(values).mean
    return int(mean) if all(isinstance(value, int) for value in values) and mean.is_integer() else mean


def merged(readings: Sequence[Readings], kind: str | None = None) -> tuple[dict[int, float], dict[int, str]]:
    """Values and reasons by result id, of all devices; `kind` picks those of one kind."""
    values: dict[int, float] = {}
    reasons: dict[int, str] = {}
    for each in readings:
        if kind is None or each.kind == kind:
            values |= each.values
            reasons |= each.reasons
    return values, {result: reason for result, reason in reasons.items() if result not in values}


#: of a table whose subject they are not: programs find them, readers elsewhere
QUIET_MEMORY_COLUMNS = tuple(replace(column, text="never") for column in MEMORY_COLUMNS)
