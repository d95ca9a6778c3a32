"""The memory table: every memory reading of every cell, and what the memory was for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.report.costs import COST_COLUMNS, SCORE_COLUMNS, Costs
from benchctl.report.footnotes import footnotes
from benchctl.report.readings import MEMORY_COLUMNS, memory_values, preference
from benchctl.report.table import (
    CELL_COLUMNS,
    NOT_RECORDED,
    OUTCOME_COLUMNS,
    Column,
    Selection,
    Table,
    Value,
    cell_values,
    outcome_values,
    selected,
)

if TYPE_CHECKING:
    from benchctl.store.store import Store
    from benchctl.store.stored import Reading

TABLE = "every memory reading of every cell by kind, source and device, and its split by category"

#: categories in the order in which a training step comes by them; others follow by name
_CATEGORIES = ("parameters", "buffers", "gradients", "optimizer", "activations", "workspace")


def build(store: Store, selection: Selection) -> Table:
    """One row per selected cell and memory reading, from the newest attempt; one row for a cell without any.

    The split by category belongs to the `allocated` reading of its source and device.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with selected(store, selection) as (snapshot, cells):
        costs = Costs(snapshot)
        memory = snapshot.readings("peak_memory_bytes")
        splits = _by_origin(snapshot.readings("memory_at_peak_bytes"))
    categories = sorted({name for split in splits.values() for name in split}, key=_category_order)
    rows = []
    for cell in cells:
        found = memory.get(cell.result_id, []) if cell.result_id is not None else []
        head, tail, (cost, score) = cell_values(cell), outcome_values(cell), costs.of(cell)
        ordered: list[Reading | None] = [*sorted(found, key=preference)]
        for reading in ordered or [None]:
            split: dict[str, Value] = {}
            if reading and reading.kind == "allocated":
                split = splits.get((cell.result_id, reading.source, reading.device), {})
            parts = (split.get(name, NOT_RECORDED) for name in categories)
            rows.append((*head, *memory_values(cell, reading), *parts, *cost, *score, *tail))
    return Table("memory", TABLE, _columns(categories), tuple(rows), footnotes(cells, memory))


def _columns(categories: list[str]) -> tuple[Column, ...]:
    kind, source, device, value, cap = MEMORY_COLUMNS
    return (
        *CELL_COLUMNS,
        # here the readings are rows, so what they are is in columns
        replace(kind, title="kind", text="varying"),
        source,
        replace(device, title="device", text="varying"),
        replace(value, split=("memory_source",)),
        cap,
        *(Column(f"{name}_bytes", name, "bytes", show="GiB", text="present") for name in categories),
        *(replace(column, text="never") for column in (*COST_COLUMNS, *SCORE_COLUMNS)),
        *OUTCOME_COLUMNS,
    )


def _by_origin(readings: dict[int, list[Reading]]) -> dict[tuple[int | None, str, str], dict[str, Value]]:
    splits: dict[tuple[int | None, str, str], dict[str, Value]] = defaultdict(dict)
    for result_id, found in readings.items():
        for reading in found:
            if reading.value is not None:
                splits[result_id, reading.source, reading.device][reading.kind] = reading.value
    return splits


def _category_order(name: str) -> tuple[int, str]:
    return (_CATEGORIES.index(name) if name in _CATEGORIES else len(_CATEGORIES), name)
