"""A table as a reader sees it: columns chosen, units converted, numbers written out. All text forms are made of this."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchctl.report.table import NOT_RECORDED, NOT_RUN, Absent, Column, Show, Table, Value

#: display unit -> base units in one of it
_SCALES: dict[Show, float] = {
    "": 1,
    "T": 1e12,
    "G": 1e9,
    "M": 1e6,
    "GiB": 2**30,
    "ms": 1e-3,
    "%": 1e-2,
    "s": 1,
    "h": 3600,
    "kWh": 3.6e6,
}
_DECIMALS = 2
_MOST_DECIMALS = 4
_HEADING_WIDTH = 16
_NOTHING = (NOT_RECORDED, NOT_RUN)


@dataclass(frozen=True)
class Field:
    """One column of a grid."""

    #: lines of its heading, the unit last
    heading: tuple[str, ...]
    texts: tuple[str, ...]
    #: numbers stand to the right
    right: bool
    #: what names a row, as opposed to what is said about it
    key: bool

    @property
    def width(self) -> int:
        """Characters of the longest text or heading line."""
        return max(map(len, (*self.heading, *self.texts)))


@dataclass(frozen=True)
class Grid:
    """A table in text."""

    title: str
    #: what every row has in common
    common: tuple[str, ...]
    fields: tuple[Field, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The texts of each row."""
        return list(zip(*(field.texts for field in self.fields)))


def grid(table: Table) -> Grid:
    """The columns of `table` that a reader needs, in the units that the field uses."""
    common: list[str] = []
    fields: list[Field] = []
    naming = True
    for column in table.columns:
        if column.text == "never":
            continue
        values = table.values(column.name)
        if column.text == "present" and all(value in _NOTHING for value in values):
            continue
        if column.unlike and values == table.values(column.unlike):
            continue
        if column.text == "varying" and len(set(values)) <= 1:
            common += _common(column, values)
            continue
        naming = naming and not column.unit
        fields += [replace(field, key=naming) for field in _fields(column, values, table)]
    return Grid(table.title, tuple(common), tuple(fields), table.notes)


def _common(column: Column, values: Sequence[Value]) -> list[str]:
    if not values or values[0] in _NOTHING:
        return []
    unit = f" {column.show}" if column.show else ""
    return [f"{_title(column)} {_writer(column, values)(values[0])}{unit}"]


def _fields(column: Column, values: Sequence[Value], table: Table) -> list[Field]:
    write = _writer(column, values)
    numeric = all(isinstance(value, int | float | Absent) for value in values)
    unit = (f"({column.show})",) if column.show else ()
    title = tuple(column.title.splitlines())
    parts = list(zip(*(table.values(name) for name in column.split)))
    distinct = sorted(set(parts), key=str)
    kinds = [part for part in distinct if not any(isinstance(name, Absent) for name in part)]
    if not kinds:
        return [Field((*title, *unit), tuple(map(write, values)), numeric, key=False)]
    made = []
    for kind in kinds:
        # a row without any reading says its word once; one with another reading leaves this column empty
        says = {kind, *distinct} - set(kinds[1:]) if kind == kinds[0] else {kind}
        texts = tuple(write(value) if part in says else "" for value, part in zip(values, parts))
        heading = (*title, *textwrap.wrap(", ".join(map(str, kind)), _HEADING_WIDTH), *unit)
        made.append(Field(heading, texts, numeric, key=False))
    return made


def _writer(column: Column, values: Sequence[Value]) -> Callable[[Value], str]:
    if not column.show and all(isinstance(value, str) or float(value).is_integer() for value in values):
        return lambda value: value if isinstance(value, str) else str(int(value))
    scale = _SCALES[column.show]
    smallest = min((size for v in values if not isinstance(v, str) and (size := abs(v) / scale)), default=1.0)
    # two significant digits of the smallest number, so that nothing that is there reads as 0.00
    decimals = min(_MOST_DECIMALS, max(_DECIMALS, 1 - math.floor(math.log10(smallest))))
    fixed = f"{{:.{decimals}f}}".format
    half = 0.5 * 10**-decimals

    def write(value: Value) -> str:
        if isinstance(value, str):
            return value
        scaled = value / scale
        return f"{scaled:.1e}" if 0 < abs(scaled) < half else fixed(scaled)

    return write


def _title(column: Column) -> str:
    return " ".join(column.title.split())
