"""What every table of a report is made of: columns in base units, rows, footnotes, and the cells that were asked for.

A table's file announces itself with `TABLE = "one line"` and has `build(store, selection) -> Table`; a figure's with
`FIGURE = "one line"` and `draw(store, selection, file)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchctl.errors import Inconclusive
from benchctl.record import Outcome

if TYPE_CHECKING:
    from benchctl.store.reading import Snapshot
    from benchctl.store.store import Store
    from benchctl.store.stored import CellRow

#: what text forms convert a column to; JSON and CSV keep base units
Show = Literal["", "T", "G", "M", "GiB", "ms", "%", "s", "h", "kWh"]


class Absent(str):
    """No value, and the word that says why: `unavailable`, `oom`, `not run`. JSON has null and CSV an empty field in its place."""

    __slots__ = ()


#: what nobody recorded, as opposed to what was tried and could not be had
NOT_RECORDED = Absent("n/a")
NOT_RUN = Absent("not run")
#: no option was changed
PRESET = Absent("preset")
#: what was tried and could not be had; a footnote has the reason
UNAVAILABLE = Absent("unavailable")

Value = str | int | float


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    #: heading in text forms; a line break is a good place to wrap it
    title: str
    #: base unit of the numbers in it; empty for words and plain numbers
    unit: str = ""
    #: unit of text forms
    show: Show = ""
    #: where text forms have it: as a column; above the table when every row agrees; if any row has a value; nowhere
    text: Literal["always", "varying", "present", "never"] = "always"
    #: names of columns whose values text forms make columns of: `predicted` never stands under `measured`
    split: tuple[str, ...] = ()
    #: text forms leave this column out where it says the same as the column of this name, row by row
    unlike: str = ""


@dataclass(frozen=True)
class Table:
    """Flat rows in base units, each with a value for every column, in order."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    def values(self, name: str) -> list[Value]:
        """The values of one column."""
        (place,) = (i for i, column in enumerate(self.columns) if column.name == name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Selection:
    """The cells that a report is about; neither: every suite, as it was last asked for."""

    suite: str | None = None
    #: id of a run, or a unique beginning
    run: str | None = None

    def __str__(self) -> str:
        parts = [f"{name} '{value}'" for name, value in (("suite", self.suite), ("run", self.run)) if value]
        return " and ".join(parts)


@contextmanager
def selected(store: Store, selection: Selection) -> Iterator[tuple[Snapshot, list[CellRow]]]:
    """The snapshot of the database that holds the selected cells, and these: each method's together, growing.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with store.snapshot(suite=selection.suite, run=selection.run) as snapshot:
        cells = snapshot.cells()
        if not any(cell.result_id is not None for cell in cells):
            what = f"{selection} has no results yet" if cells and str(selection) else "the database holds no results yet"
            raise Inconclusive(what, where=str(store.location), fix="run a suite first: benchctl run SUITE")
        yield snapshot, sorted(cells, key=reading_order)


def absence(cell: CellRow, otherwise: Absent = NOT_RECORDED) -> Absent:
    """The word that stands for a number that `cell` does not have: how the cell ended, if it did not end well."""
    if cell.outcome is None:
        return NOT_RUN
    return otherwise if cell.outcome is Outcome.OK else Absent(cell.outcome.value)


#: what every table says about a cell, before its numbers
CELL_COLUMNS = (
    Column("task", "task", text="varying"),
    Column("method", "method"),
    Column("options", "options", text="varying"),
    Column("dataset", "dataset", text="varying"),
    Column("batch_size", "batch", text="varying"),
    Column("frames", "frames"),
    Column("resolution", "resolution"),
    Column("precision", "precision", text="varying"),
    Column("attention", "attention", text="varying"),
    Column("optimizer", "optimizer", text="varying"),
    Column("seed", "seed", text="varying"),
)
#: and after them
OUTCOME_COLUMNS = (
    Column("outcome", "outcome", text="varying"),
    Column("reason", "reason", text="never"),
    Column("seconds", "time", "seconds", show="s", text="never"),
    Column("run", "run", text="never"),
    Column("cell", "cell", text="never"),
)


def cell_values(cell: CellRow) -> tuple[Value, ...]:
    """The values of `CELL_COLUMNS`."""
    return (
        cell.task,
        cell.method,
        cell.options or PRESET,
        cell.dataset or NOT_RECORDED,
        cell.batch_size,
        cell.frames,
        cell.resolution,
        cell.precision,
        cell.attention,
        cell.optimizer,
        cell.seed,
    )


def outcome_values(cell: CellRow) -> tuple[Value, ...]:
    """The values of `OUTCOME_COLUMNS`."""
    return (
        cell.outcome.value if cell.outcome else NOT_RUN,
        cell.reason or NOT_RECORDED,
        NOT_RUN if cell.seconds is None else cell.seconds,
        cell.run_id or NOT_RUN,
        cell.cell_id,
    )


def reading_order(cell: CellRow) -> tuple[object, ...]:
    """Rows of one method together, growing."""
    return (
        cell.task,
        cell.method,
        cell.options,
        cell.batch_size,
        cell.frames,
        cell.resolution,
        cell.precision,
        cell.attention,
        cell.seed,
        cell.cell_id,
    )
