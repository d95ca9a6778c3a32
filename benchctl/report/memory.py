"""The memory table: every memory reading of every cell, and what the memory was for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.report.costs import COST_COLUMNS, SCORE_COLUMNS, Costs
from benchctl.report.footnotes import footnotes
from benchctl.report.over_seeds import unmatched
from benchctl.report.readings import MEMORY_COLUMNS, memory_values, of_cell, preference
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
    from benchctl.store.stored import Readings

TABLE = "every memory reading of every cell by kind, source and device, and its split by category"

#: categories in the order in which a training step comes by them; others follow by name
_CATEGORIES = ("parameters", "buffers", "gradients", "optimizer", "inputs", "activations", "workspace")
_NONE: dict[int, float | int] = {}


def build(store: Store, selection: Selection) -> Table:
    """One row per selected cell and memory reading, from the newest attempt; one row for a cell without any.

    The split by category belongs to the `allocated` reading of its source and device.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with selected(store, selection) as (snapshot, cells):
        costs = Costs(snapshot)
        memory = sorted(snapshot.readings("peak_memory_bytes"), key=preference)
        budgets = tuple(unmatched(snapshot, cells))
        splits = snapshot.readings("memory_at_peak_bytes")
    categories = sorted({split.kind for split in splits}, key=_category_order)
    by_origin = {(split.source, split.device, split.kind): split.values for split in splits}
    shown = [of_cell(cell, memory) for cell in cells]
    rows = []
    for cell, found in zip(cells, shown):
        head, tail, (cost, score) = cell_values(cell), outcome_values(cell), costs.of(cell)
        readings: Sequence[Readings | None] = found or (None,)
        for reading in readings:
            parts: tuple[Value, ...] = (NOT_RECORDED,) * len(categories)
            if reading and reading.kind == "allocated" and cell.result_id is not None:
                of = [by_origin.get((reading.source, reading.device, category), _NONE) for category in categories]
                parts = tuple(values.get(cell.result_id, NOT_RECORDED) for values in of)
            rows.append((*head, *memory_values(cell, reading), *parts, *cost, *score, *tail))
    return Table("memory", TABLE, _columns(categories), tuple(rows), (*footnotes(cells, shown), *budgets))


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


def _category_order(name: str) -> tuple[int, str]:
    return (_CATEGORIES.index(name) if name in _CATEGORIES else len(_CATEGORIES), name)
