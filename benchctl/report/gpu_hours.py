"""The GPU-hours table: what each training took, raw and as hours of a V100 by every table of factors, its energy and its CPU time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.report.budgets import BUDGET_COLUMNS, budget_notes, budget_values, verdicts
from benchctl.report.footnotes import footnotes, reasons
from benchctl.report.over_seeds import COUNT_COLUMNS, QUIET_MEMORY_COLUMNS, Trained, mean_of, merged, over, read
from benchctl.report.table import UNAVAILABLE, Absent, Column, Selection, Table, Value
from benchctl.report.trainings import ENDING_COLUMNS, TRAINING_COLUMNS, Training, ending_values, training_values

if TYPE_CHECKING:
    from benchctl.store.store import Store

TABLE = "GPU-hours of every training, raw and V100-normalised by each table of factors, energy and CPU-hours"

#: tables of factors that always have their columns; others follow by name
FACTOR_TABLES = ("moose-v1", "peak-dense16-v1", "lambda-fp16-v1")
_ON_A_CPU = Absent("trained on a CPU")
#: the same, in the columns beside the one that says it
_NO_GPU = Absent("no GPU")
_UNKNOWN_GPU = Absent("unknown GPU")
_MIXED = Absent("different GPUs")
_METRICS = ("gpu_seconds", "v100_gpu_seconds", "energy_joules", "cpu_seconds")
_USED_COLUMNS = (
    Column("seeds", "seeds"),
    Column("seeds_done", "seeds\ndone", unlike="seeds"),
    Column("top1", "top-1\nmean", "fraction", show="%", text="present"),
    Column("top5", "top-5", "fraction", show="%", text="never"),
    Column("gpu", "GPU"),
    Column("train_seconds", "train\ntime", "seconds", show="h"),
    # seconds x GPUs, of one training: the mean over the seeds that ended well
    Column("gpu_seconds", "GPU-hours\nraw", "seconds", show="h"),
    # and of all seeds together, however they ended
    Column("gpu_seconds_total", "GPU-hours raw,\nall seeds", "seconds", show="h"),
)
_OTHER_COLUMNS = (
    Column("energy_joules", "energy", "joules", show="kWh"),
    Column("cpu_seconds", "CPU-hours", "seconds", show="h"),
)


def build(store: Store, selection: Selection) -> Table:
    """One row per training: cells that differ in their seed only, in the order of the accuracy table.

    Hours are those of one training, the mean over the seeds that ended well; a factor is what was recorded as used, never looked up
    again, and a GPU that a table lacks has none. Hours that papers publish are not among them.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    trained = read(store, selection, _METRICS)
    tables = (*FACTOR_TABLES, *sorted({each.kind for each in trained.readings["v100_gpu_seconds"]} - {*FACTOR_TABLES, ""}))
    said = verdicts(trained.of, trained.uses)
    hours = _Hours(trained)
    rows = [
        (
            *training_values(training),
            len(training.cells),
            len(training.done),
            *(trained.mean(training, name) for name in ("top1", "top5")),
            *hours.raw(training),
            *(value for name in tables for value in hours.normalised(training, name)),
            hours.energy(training),
            hours.cpu(training),
            *trained.counts(training),
            *budget_values(training, trained.uses[i], said[i]),
            *trained.memory(training),
            *ending_values(training),
        )
        for i, training in enumerate(trained.of)
    ]
    quiet = [replace(column, text="never") for column in (*COUNT_COLUMNS, *BUDGET_COLUMNS[1:])]
    budget = quiet[: len(COUNT_COLUMNS)], BUDGET_COLUMNS[0], quiet[len(COUNT_COLUMNS) :]
    columns = (
        *TRAINING_COLUMNS,
        *_USED_COLUMNS,
        *(column for name in tables for column in _factor_columns(name)),
        *_OTHER_COLUMNS,
        *budget[0],
        budget[1],
        *budget[2],
        *QUIET_MEMORY_COLUMNS,
        *ENDING_COLUMNS,
    )
    notes = (
        *trained.notes(),
        *hours.notes(tables),
        *budget_notes(trained.of, trained.labels, said, trained.uses),
        *footnotes(trained.shown, [()] * len(trained.shown)),
    )
    return Table("gpu-hours", TABLE, columns, tuple(rows), notes)


def _factor_columns(table: str) -> tuple[Column, ...]:
    name = table.replace("-", "_")
    return (
        Column(f"factor_{name}", f"factor\n{table}", text="present"),
        Column(f"v100_gpu_seconds_{name}", f"V100-hours\n{table}", "seconds", show="h", text="present"),
    )


class _Hours:
    """What trainings took, and the word where it is not known."""

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        readings = trained.readings
        self._gpu, self._gpu_reasons = merged(readings["gpu_seconds"])
        self._energy, self._energy_reasons = merged(readings["energy_joules"])
        self._cpu, self._cpu_reasons = merged(readings["cpu_seconds"])
        self._tables = {each.kind: merged(readings["v100_gpu_seconds"], each.kind) for each in readings["v100_gpu_seconds"]}

    def raw(self, training: Training) -> tuple[Value, ...]:
        """The GPU, the time of a training, its GPU-seconds, and those of all seeds, however they ended."""
        gpus = self._gpus(training)
        known = over(training, self._gpu)
        every = [self._gpu[cell.result_id] for cell in training.cells if cell.result_id in self._gpu]
        missing = self._missing(training, self._gpu_reasons, UNAVAILABLE)
        name: Value = "; ".join(gpus) or (_ON_A_CPU if missing is _NO_GPU else missing if not training.done else _UNKNOWN_GPU)
        one: Value = _MIXED if len(gpus) > 1 else mean_of(known, training) if known else missing
        return (name, self._trained.mean(training, "train_seconds"), one, sum(every) if every else missing)

    def normalised(self, training: Training, table: str) -> tuple[Value, Value]:
        """The factor of `table` that was used, and the hours of a V100 that it gives."""
        values, reasons_of = self._tables.get(table, ({}, {}))
        known = over(training, values)
        missing = self._missing(training, reasons_of, _UNKNOWN_GPU)
        if not known:
            return missing, missing
        if len(known) < len(training.done):
            # a mean over the seeds whose GPU has a factor would be of other trainings than the raw one
            return _MIXED, _MIXED
        ids = [cell.result_id for cell in training.done if self._gpu.get(cell.result_id or 0)]
        factors = {float(f"{values[number] / self._gpu[number]:.6g}") for number in ids if number is not None}
        factor: Value = _MIXED if len(factors) > 1 else factors.pop() if factors else training.missing
        return factor, mean_of(known, training)

    def energy(self, training: Training) -> Value:
        """Joules of one training."""
        known = over(training, self._energy)
        return mean_of(known, training) if known else self._missing(training, self._energy_reasons, UNAVAILABLE)

    def cpu(self, training: Training) -> Value:
        """CPU-seconds of one training."""
        known = over(training, self._cpu)
        if known:
            return mean_of(known, training)
        return UNAVAILABLE if _reason(training, self._cpu_reasons) else training.missing

    def notes(self, tables: Sequence[str]) -> Iterator[str]:
        """What a reader must know, each thing once."""
        cells = [cell for training in self._trained.of for cell in training.done]
        on_gpus = [cell for cell in cells if cell.device != "cpu"]
        if any(cell.result_id in self._gpu for cell in cells):
            yield "GPU-hours are seconds x GPUs of one training, measured here: the mean over seeds. None of them is out of a paper."
        if any(self._tables.get(table, ({}, {}))[0] for table in tables):
            yield "V100-hours are GPU-hours x the factor of the table that the column names; a GPU that a table lacks has none."
        yield from reasons(on_gpus, "GPU time", self._gpu_reasons)
        for table in tables:
            yield from reasons(on_gpus, f"V100-hours of {table}", self._tables.get(table, ({}, {}))[1])
        yield from reasons(cells, "Energy", self._energy_reasons)
        yield from reasons(cells, "CPU time", self._cpu_reasons)

    def _gpus(self, training: Training) -> list[str]:
        """The names of the GPUs that its seeds were trained on; where a machine has several kinds, of all that it may have been."""
        found: dict[str, None] = {}
        for cell in training.cells:
            if cell.device not in (None, "cpu", "none") and cell.run_id:
                names = dict.fromkeys(self._trained.gpus.get(cell.run_id, ()))
                found |= {" or ".join(names): None} if names else {}
        return list(found)

    def _missing(self, training: Training, reasons_of: Mapping[int, str], otherwise: Absent) -> Absent:
        """The word where there is no number: what it was trained on, how it ended, or `otherwise` where a reason was recorded."""
        devices = {cell.device for cell in (training.done or training.cells) if cell.device}
        if devices == {"cpu"}:
            return _NO_GPU
        return otherwise if _reason(training, reasons_of) else training.missing


def _reason(training: Training, reasons_of: Mapping[int, str]) -> bool:
    return any(cell.result_id in reasons_of for cell in training.done)
