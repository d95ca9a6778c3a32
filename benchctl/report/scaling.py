"""The scaling table: what several processes bring, against one that trains the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchctl.report.footnotes import footnotes
from benchctl.report.over_seeds import COUNT_COLUMNS, QUIET_MEMORY_COLUMNS, mean_of, over, trained_of
from benchctl.report.table import NOT_RECORDED, Column, Selection, Table, Value, selected
from benchctl.report.trainings import ENDING_COLUMNS, TRAINING_COLUMNS, Training, ending_values, training_values

if TYPE_CHECKING:
    from benchctl.store.reading import Snapshot
    from benchctl.store.store import Store

TABLE = "throughput, scaling efficiency against one process, and memory per rank, of trainings that differ in their launch"

#: name here -> metric and kind
_NUMBERS: dict[str, tuple[str, str]] = {
    "throughput": ("throughput_clips_per_second", "training"),
    "communication": ("communication_fraction", ""),
}
#: the same of memory, and its source: what is predicted is about a GPU, wherever the cell was executed
_MEMORY: dict[str, tuple[str, str]] = {
    "allocated": ("allocated", "measured"),
    "process": ("process", "measured"),
    "predicted": ("allocated", "predicted"),
}
_COLUMNS = (
    Column("engine", "engine"),
    Column("zero", "ZeRO\nstage", text="varying"),
    Column("ranks", "ranks"),
    Column("seeds", "seeds", text="varying"),
    Column("device", "device", text="varying"),
    Column("throughput_clips_per_second", "clips / s", "clips/second"),
    Column("speedup", "times\none process"),
    Column("efficiency", "efficiency", "fraction", show="%"),
    Column("baseline", "one process is"),
    Column("communication_fraction", "communication", "fraction", show="%", text="present"),
    # of the rank that took most
    Column("rank_memory_bytes", "memory\nper rank", "bytes", show="GiB", split=("rank_memory_kind",)),
    Column("rank_memory_kind", "of memory per rank", text="never"),
    Column("predicted_rank_memory_bytes", "allocated per rank,\npredicted", "bytes", show="GiB", text="present"),
    Column("top1", "top-1\nmean", "fraction", show="%", text="present"),
    Column("top5", "top-5", "fraction", show="%", text="never"),
    # of every table
    *(replace(column, text="never") for column in COUNT_COLUMNS),
)


def build(store: Store, selection: Selection) -> Table:
    """One row per training, those that differ in their launch alone together, one process first.

    Efficiency is throughput over ranks times that of one rank with the same engine and stage; where there is none, of the plain process.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with selected(store, selection) as (snapshot, cells):
        trained = trained_of(snapshot, cells, ())
        numbers = _numbers(snapshot)
    groups: dict[str, list[Training]] = {}
    for training in trained.of:
        groups.setdefault(_kin(training), []).append(training)
    rows: list[tuple[Value, ...]] = []
    shown: list[Training] = []
    for group in groups.values():
        for training in sorted(group, key=_order):
            shown.append(training)
            values = (*_values(training, group, numbers), *(trained.mean(training, name) for name in ("top1", "top5")))
            costs = (*trained.counts(training), *trained.memory(training))
            rows.append((*training_values(training), *values, *costs, *ending_values(training)))
    notes = (*trained.notes(), *_notes(shown, numbers), *footnotes(trained.shown, [()] * len(trained.shown)))
    return Table("scaling", TABLE, (*TRAINING_COLUMNS, *_COLUMNS, *QUIET_MEMORY_COLUMNS, *ENDING_COLUMNS), tuple(rows), notes)


def _numbers(snapshot: Snapshot) -> dict[str, dict[int, float]]:
    """By name and result."""
    from benchctl.store.reading import Scalar

    found: dict[str, dict[int, float]] = {name: {} for name in (*_NUMBERS, *_MEMORY)}
    wanted = [Scalar(metric, (kind,)) for metric, kind in _NUMBERS.values()]
    for result, values in snapshot.scalars(wanted).items():
        for name, value in zip(_NUMBERS, values):
            if value is not None:
                found[name][result] = value
    for reading in snapshot.readings("peak_memory_bytes"):
        for name, (kind, source) in _MEMORY.items():
            if (reading.kind, reading.source) == (kind, source):
                found[name] |= reading.values
    return found


def _launch(training: Training) -> Mapping[str, Any]:
    """As the cell has it; empty: one plain process."""
    found: Mapping[str, Any] = training.content.get("launch") or {}
    return found


def _ranks(training: Training) -> int:
    launch = _launch(training)
    return int(launch.get("gpus", 1)) * int(launch.get("nodes", 1))


def _kin(training: Training) -> str:
    """What trainings have in common that differ in their launch alone."""
    return json.dumps({key: value for key, value in training.content.items() if key not in ("launch", "options")}, sort_keys=True)


def _alike(training: Training) -> tuple[Any, ...]:
    """The launch, but for how many processes there are."""
    launch = _launch(training)
    return tuple(launch.get(key) for key in ("engine", "zero", "offload", "half", "activation_checkpointing"))


def _order(training: Training) -> tuple[str, int, int]:
    launch = _launch(training)
    engine = str(launch.get("engine", ""))
    return ("" if engine == "plain" else engine, int(launch.get("zero", 0)), _ranks(training))


def _baseline(training: Training, group: Sequence[Training]) -> tuple[Training | None, str]:
    """One rank that trains the same, and what it is."""
    own = next((each for each in group if _launch(each) and _ranks(each) == 1 and _alike(each) == _alike(training)), None)
    if own is not None:
        return own, "one rank of the same engine"
    plain = next((each for each in group if not _launch(each)), None)
    return plain, "a plain process"


def _values(training: Training, group: Sequence[Training], numbers: Mapping[str, Mapping[int, float]]) -> tuple[Value, ...]:
    """The values of the first of `_COLUMNS`, up to memory."""
    launch, ranks = _launch(training), _ranks(training)
    mean = {name: mean_of(over(training, values), training) for name, values in numbers.items()}
    base, word = _baseline(training, group)
    one = mean_of(over(base, numbers["throughput"]), base) if base is not None else NOT_RECORDED
    own = mean["throughput"]
    times: Value = own / one if isinstance(own, float) and isinstance(one, float) and one else NOT_RECORDED
    kind = "allocated" if isinstance(mean["allocated"], int | float) else "process"
    return (
        str(launch.get("engine", "plain")),
        launch["zero"] if launch.get("engine") == "deepspeed" else NOT_RECORDED,
        ranks,
        len(training.cells),
        next((cell.device for cell in training.cells if cell.device), NOT_RECORDED),
        own,
        times,
        times / ranks if isinstance(times, float) else NOT_RECORDED,
        word if base is not None else NOT_RECORDED,
        mean["communication"],
        mean[kind],
        {"allocated": "allocated", "process": "whole process"}[kind] if isinstance(mean[kind], int | float) else NOT_RECORDED,
        mean["predicted"],
    )


def _notes(shown: Sequence[Training], numbers: Mapping[str, Mapping[int, float]]) -> Iterator[str]:
    if any(over(training, numbers["throughput"]) for training in shown):
        yield "Clips per second are of all ranks together, loading included, without the first five steps."
    if any(over(training, numbers["process"]) for training in shown):
        yield "Memory of a rank on a CPU is the resident set of its whole process, libraries included."
    if any(_ranks(training) > 1 and cell.device == "cpu" for training in shown for cell in training.cells):
        yield "Ranks on a CPU share its cores: they show that it works, not how it scales."
