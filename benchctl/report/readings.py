"""Memory readings in tables: each says its source, kind and device, and none stands in for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.report.table import NOT_RECORDED, Absent, Column, Value, absence

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Reading

#: columns of a table with one reading per cell; text forms have a column for each kind of reading
MEMORY_COLUMNS = (
    Column("peak_memory_bytes", "peak\nmemory", "bytes", show="GiB", split=("memory_source", "memory_kind", "memory_device")),
    Column("memory_kind", "memory kind", text="never"),
    Column("memory_source", "memory source", text="never"),
    Column("memory_device", "memory device", text="never"),
    Column("memory_cap_bytes", "memory cap", "bytes", show="GiB", text="varying"),
)
_ORIGINS = (("measured", "cuda"), ("predicted", "cuda"), ("measured", "cpu"))
_KINDS = ("allocated", "reserved", "device", "rss")


def preference(reading: Reading) -> tuple[object, ...]:
    """Sorts the readings of a cell: those with a value, then the GPU's, its prediction, the CPU's; allocated before reserved."""
    origin = (reading.source, reading.device)
    rank = _ORIGINS.index(origin) if origin in _ORIGINS else len(_ORIGINS)
    kind = _KINDS.index(reading.kind) if reading.kind in _KINDS else len(_KINDS)
    return (reading.value is None, rank, origin, kind, reading.kind)


def memory_values(cell: CellRow, reading: Reading | None) -> dict[str, Value]:
    """The values of `MEMORY_COLUMNS`; where there is no reading, words."""
    cap: Value = NOT_RECORDED if cell.memory_cap_bytes is None else cell.memory_cap_bytes
    missing = absence(cell)
    if reading is None:
        names = ("peak_memory_bytes", "memory_kind", "memory_source", "memory_device")
        return {**dict.fromkeys(names, missing), "memory_cap_bytes": cap}
    return {
        "peak_memory_bytes": absence(cell, Absent("unavailable")) if reading.value is None else reading.value,
        "memory_kind": reading.kind or missing,
        "memory_source": reading.source,
        "memory_device": reading.device or missing,
        "memory_cap_bytes": cap,
    }
