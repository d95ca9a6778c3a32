"""Memory readings in tables: each says its source, kind and device, and none stands in for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.report.table import NOT_RECORDED, UNAVAILABLE, Column, Value, absence

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Reading

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


def preference(reading: Reading) -> tuple[object, ...]:
    """Sorts the readings of a cell: those with a value, then the GPU's, its prediction, the CPU's; allocated before reserved."""
    origin = (reading.source, reading.device)
    return (reading.value is None, _ORIGINS.get(origin, len(_ORIGINS)), origin, _KINDS.get(reading.kind, len(_KINDS)), reading.kind)


def memory_values(cell: CellRow, reading: Reading | None) -> tuple[Value, ...]:
    """The values of `MEMORY_COLUMNS`; where there is no reading, words."""
    cap = NOT_RECORDED if cell.memory_cap_bytes is None else cell.memory_cap_bytes
    missing = absence(cell)
    if reading is None:
        return (missing, missing, missing, missing, cap)
    value = absence(cell, UNAVAILABLE) if reading.value is None else reading.value
    return (reading.kind or missing, reading.source, reading.device or missing, value, cap)
