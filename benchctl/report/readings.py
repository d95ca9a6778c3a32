"""Memory readings in tables: each says its source, kind and device, and none stands in for another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchctl.report.table import NOT_RECORDED, UNAVAILABLE, Column, Value, absence

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Readings

#: columns of a table with one reading per cell; text forms have a column for each kind of reading
MEMORY_COLUMNS = (
    Column("memory_kind", "memory kind", text="never"),
    Column("memory_source", "memory source", text="never"),
    Column("memory_device", "memory device", text="never"),
    Column("peak_memory_bytes", "peak\nmemory", "bytes", show="GiB", split=("memory_source", "memory_kind", "memory_device")),
    Column("memory_cap_bytes", "memory cap", "bytes", show="GiB", text="varying"),
)
_ORIGINS = {("measured", "cuda"): 0, ("predicted", "cuda"): 1, ("measured", "cpu"): 2}
_KINDS = {"allocated": 0, "reserved": 1, "device": 2, "rss": 3}


def preference(readings: Readings) -> tuple[object, ...]:
    """Sorts readings: the GPU's, its prediction, the CPU's; allocated before reserved."""
    origin = (readings.source, readings.device)
    return (_ORIGINS.get(origin, len(_ORIGINS)), origin, _KINDS.get(readings.kind, len(_KINDS)), readings.kind)


def of_cell(cell: CellRow, readings: Sequence[Readings]) -> list[Readings]:
    """Those of `readings` that hold a value, or the reason for none, about `cell`; those with a value first."""
    number = cell.result_id
    if number is None:
        return []
    return [r for r in readings if number in r.values] + [r for r in readings if number in r.reasons]


def memory_values(cell: CellRow, readings: Readings | None) -> tuple[Value, ...]:
    """The values of `MEMORY_COLUMNS`; where there is no reading, words."""
    cap = NOT_RECORDED if cell.memory_cap_bytes is None else cell.memory_cap_bytes
    missing = absence(cell)
    if readings is None or cell.result_id is None:
        return (missing, missing, missing, missing, cap)
    value = readings.values.get(cell.result_id, absence(cell, UNAVAILABLE))
    return (readings.kind or missing, readings.source, readings.device or missing, value, cap)
