"""Numbers out of papers: one YAML file per paper in `baselines/published`, row by row as its tables print them.

A table declares its columns once, each with metric, unit and how it was counted, and what its rows have in common; a row is its label
and its values in the columns' order. A row that benchctl can run names the cell. A value that is not there is a word, never 0:
`-` where the paper prints a dash, `blank` where it prints nothing, `illegible` where the copy that was transcribed has lost it.

Read here, every number stands alone: in base units, with paper, table, row, column, convention and protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from benchctl import yaml_file
from benchctl.errors import UsageError
from benchctl.record import UNITS
from benchctl.spec import options_text
from benchctl.vocabulary import Count
from benchctl.yaml_file import FileKind, Location, YamlFile

#: units as papers print them; `number` is a setting such as a learning rate, which has none
Unit = Literal["T", "G", "M", "count", "GB", "GiB", "h", "min", "s", "ms", "%", "fraction", "number"]
#: unit -> base unit, and base units in one of it
_UNITS: dict[Unit, tuple[str, str]] = {
    "T": ("count", "1e12"),
    "G": ("count", "1e9"),
    "M": ("count", "1e6"),
    "count": ("count", "1"),
    "GB": ("bytes", "1e9"),
    "GiB": ("bytes", str(2**30)),
    "h": ("seconds", "3600"),
    "min": ("seconds", "60"),
    "s": ("seconds", "1"),
    "ms": ("seconds", "1e-3"),
    "%": ("fraction", "1e-2"),
    "fraction": ("fraction", "1"),
    "number": ("number", "1"),
}

NOT_STATED = "not stated"
#: how multiply-accumulates are counted: as `Measurement` has them
MACS_KINDS = ("all", "without_attention", "without_correlation", "without_flow", "windowed")
#: metric -> the kinds that `Measurement` has of it; a number out of a paper may also be `not stated`
_KINDS: dict[str, tuple[str, ...]] = {
    "macs": (*MACS_KINDS, NOT_STATED),
    "flops": (*MACS_KINDS, NOT_STATED),
    "peak_memory_bytes": ("allocated", "reserved", "device", "rss", NOT_STATED),
}
_OPERATIONS = ("macs", "flops")
_ACCURACIES = ("top1", "top5")
ABSENT = ("-", "blank", "illegible")


def _number_or_word(value: Any) -> Any:
    if value in ABSENT or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!r} is neither a number nor one of {', '.join(map(repr, ABSENT))}")


Printed = Annotated[Any, BeforeValidator(_number_or_word)]


class _Published(BaseModel):
    """Frozen, closed base of everything here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Protocol(_Published):
    """How a number was obtained. None: the paper does not say."""

    frames: Count | None = None
    crops: Count | None = None
    clips: Count | None = None
    #: views of a clip that a score is averaged over: crops x clips, where only their product is printed too
    views: Count | None = None
    resolution: Count | None = None
    #: clips in the step whose memory is given
    batch_size: Count | None = None
    precision: str | None = None

    def changed(self, by: Protocol) -> Protocol:
        """This protocol, with what `by` says."""
        return self.model_copy(update=by.model_dump(exclude_none=True))


class CellKey(_Published):
    """The cell of benchctl that a row is about. `options` as a suite writes them, without those that the preset has already."""

    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    frames: Count
    #: frames as papers count them, where the clip that the method is given holds others
    counted_frames: Count | None = None
    resolution: Count
    #: of the memory; None: the row has none
    batch_size: Count | None = None

    @property
    def frames_printed(self) -> int:
        """Frames of the clip, as papers count them."""
        return self.counted_frames or self.frames

    @property
    def options_text(self) -> str:
        """The options as the database has them."""
        return options_text(self.options)


class PublishedColumn(_Published):
    """What the numbers of one column are."""

    name: str
    #: one of `record.UNITS`, or the field's name for what benchctl does not record
    metric: str
    unit: Unit
    #: as `Measurement.kind`
    kind: str = ""
    #: views that a number of operations contains
    counted_views: Count | None = None
    #: of a score
    dataset: str | None = None
    protocol: Protocol = Protocol()
    #: what a reader must know wherever a number of this column is shown
    note: str = ""


class PublishedRow(_Published):
    """One row, as printed."""

    label: str
    values: tuple[Printed, ...]
    #: in place of the columns' kind of operations
    kind: str | None = None
    protocol: Protocol = Protocol()
    cell: CellKey | None = None
    #: metric -> why ours differs
    exception: dict[str, str] = Field(default_factory=dict)
    note: str = ""


class PublishedTable(_Published):
    """One table of a paper."""

    table: str
    caption: str
    columns: tuple[PublishedColumn, ...] = Field(min_length=1)
    rows: tuple[PublishedRow, ...] = Field(min_length=1)
    protocol: Protocol = Protocol()
    note: str = ""


class Paper(_Published):
    """One paper's file."""

    paper: str
    title: str
    #: as printed
    venue: str
    #: None: not printed
    year: Count | None = None
    note: str = ""
    tables: tuple[PublishedTable, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Number:
    """One published number, complete."""

    paper: str
    table: str
    row: str
    column: str
    metric: str
    #: in base units; None: `absent` is the word
    value: float | int | None
    absent: str | None
    #: half a unit of the last printed digit, in base units: what rounding alone can hide
    half_digit: float | None
    unit: str
    #: the value as the paper has it, with its unit
    printed: str
    kind: str
    counted_views: int | None
    dataset: str | None
    protocol: Protocol
    #: what a reader must know about every number of its column
    note: str


@dataclass(frozen=True)
class Entry:
    """One row with its numbers resolved."""

    paper: str
    table: str
    row: PublishedRow
    numbers: tuple[Number, ...]

    def number(self, metric: str) -> Number | None:
        """Its first number of `metric` that has a value."""
        return next((n for n in self.numbers if n.metric == metric and n.value is not None), None)

    @property
    def scores(self) -> list[Number]:
        """Its top-1 accuracies."""
        return [n for n in self.numbers if n.metric == "top1" and n.value is not None]


def shipped() -> dict[str, Path]:
    """The papers whose numbers come with benchctl, by key."""
    return yaml_file.shipped("baselines/published")


def load(path: Path) -> Paper:
    """The paper in the file `path`.

    Raises:
        UsageError: with file:line:column.
    """
    return _checked(yaml_file.read(path, _FILE))


def parse(text: str, path: Path) -> Paper:
    """As `load`, from text; `path` is named in errors, and its stem must be the paper's key."""
    return _checked(yaml_file.parse(text, path, _FILE))


def entries(paper: Paper) -> Iterator[Entry]:
    """Every row of every table, in order."""
    for table in paper.tables:
        for row in table.rows:
            numbers = tuple(_number(paper, table, row, column, value) for column, value in zip(table.columns, row.values))
            yield Entry(paper.paper, table.table, row, numbers)


_FILE = FileKind(UsageError, "a file of published numbers", needs="paper, title, venue and tables", begin="paper: ...")


def _number(paper: Paper, table: PublishedTable, row: PublishedRow, column: PublishedColumn, value: Any) -> Number:
    base, scale = _UNITS[column.unit]
    kind = row.kind if row.kind is not None and column.metric in _OPERATIONS else column.kind
    shown = column.unit if column.unit not in ("count", "number") else ""
    there = not isinstance(value, str)
    return Number(
        paper=paper.paper,
        table=table.table,
        row=row.label,
        column=column.name,
        metric=column.metric,
        value=_exact(Decimal(repr(value)) * Decimal(scale)) if there else None,
        absent=None if there else value,
        half_digit=float(Decimal(scale) * Decimal(10) ** _exponent(value) / 2) if there else None,
        unit=base,
        printed=f"{value} {shown}".strip() if there else value,
        kind=kind,
        counted_views=column.counted_views,
        dataset=column.dataset,
        protocol=table.protocol.changed(row.protocol).changed(column.protocol),
        note=column.note,
    )


def _exact(value: Decimal) -> float | int:
    return int(value) if value == value.to_integral_value() else float(value)


def _exponent(value: float | int) -> int:
    exponent = Decimal(repr(value)).as_tuple().exponent
    assert isinstance(exponent, int), f"{value} is not finite"
    return exponent


def _checked(file: YamlFile) -> Paper:
    paper = file.validated(Paper)
    if paper.paper != file.path.stem:
        raise file.error(
            ("paper",), f"'{paper.paper}' is in a file called '{file.path.name}'", f"call one as the other: {paper.paper}.yaml"
        )
    _distinct(file, ("tables",), "table", [table.table for table in paper.tables])
    for t, table in enumerate(paper.tables):
        place: Location = ("tables", t)
        _distinct(file, (*place, "columns"), "name", [column.name for column in table.columns])
        _distinct(file, (*place, "rows"), "label", [row.label for row in table.rows])
        for c, column in enumerate(table.columns):
            _check_column(file, (*place, "columns", c), column)
        for r, row in enumerate(table.rows):
            _check_row(file, (*place, "rows", r), table, row)
            if row.cell is not None:
                resolved = [_number(paper, table, row, column, value) for column, value in zip(table.columns, row.values)]
                _check_cell(file, (*place, "rows", r), row.cell, [n for n in resolved if n.value is not None])
    return paper


def _distinct(file: YamlFile, place: Location, key: str, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise file.error((*place, index, key), f"'{name}' is there twice", "make the names tell them apart")


def _check_column(file: YamlFile, place: Location, column: PublishedColumn) -> None:
    base = _UNITS[column.unit][0]
    wanted = UNITS.get(column.metric, base)
    if base != wanted:
        raise file.error((*place, "unit"), f"{column.metric} is in {wanted}, and '{column.unit}' is not")
    kinds = _KINDS.get(column.metric, ("",))
    if column.kind not in kinds:
        known = ", ".join(kinds) if any(kinds) else "none"
        raise file.error((*place, "kind"), f"{column.metric} has no kind '{column.kind}'", f"kinds: {known}")
    if (column.metric in _OPERATIONS) != (column.counted_views is not None):
        text = "must say how many views its numbers contain" if column.metric in _OPERATIONS else "contains no views"
        raise file.error((*place, "counted_views"), f"a column of {column.metric} {text}")
    if column.metric in _ACCURACIES and column.dataset is None:
        raise file.error((*place, "dataset"), f"a column of {column.metric} must say of which data set")


def _check_row(file: YamlFile, place: Location, table: PublishedTable, row: PublishedRow) -> None:
    if len(row.values) != len(table.columns):
        names = ", ".join(column.name for column in table.columns)
        raise file.error((*place, "values"), f"{len(row.values)} values in {len(table.columns)} columns", f"one each for {names}")
    if row.kind is not None and row.kind not in _KINDS["macs"]:
        raise file.error((*place, "kind"), f"operations have no kind '{row.kind}'", f"kinds: {', '.join(_KINDS['macs'])}")
    for metric in row.exception:
        if metric not in {column.metric for column in table.columns}:
            raise file.error((*place, "exception", metric), f"the table has no column of '{metric}'")


def _check_cell(file: YamlFile, place: Location, cell: CellKey, numbers: Sequence[Number]) -> None:
    """A cell must be the one that the numbers are about."""
    for number in numbers:
        costs = number.metric in (*_OPERATIONS, "peak_memory_bytes")
        if number.metric in _OPERATIONS and number.kind == NOT_STATED:
            raise file.error((*place, "kind"), f"{number.column} cannot be compared while its kind is not stated", "say how it was counted")
        for name in ("frames", "resolution") if costs else ():
            stated = getattr(number.protocol, name)
            if stated not in (None, cell.frames_printed if name == "frames" else cell.resolution):
                raise file.error((*place, "cell", name), f"{number.column} is about {stated} {name}")
    memory = [number for number in numbers if number.metric == "peak_memory_bytes"]
    if memory and cell.batch_size != memory[0].protocol.batch_size:
        raise file.error((*place, "cell", "batch_size"), f"the memory is about a batch of {memory[0].protocol.batch_size or NOT_STATED}")
    if not memory and cell.batch_size is not None:
        raise file.error((*place, "cell", "batch_size"), "the row has no memory, which alone depends on it", "leave it out")


class TableCounts(NamedTuple):
    """How much a table, or a paper, holds."""

    rows: int
    #: numbers that are there
    numbers: int
    #: rows that name a cell
    runnable: int

    def __str__(self) -> str:
        return f"{self.numbers} numbers in {self.rows} rows, of which benchctl can run {self.runnable}"


def counts(paper: Paper) -> dict[str, TableCounts]:
    """What each table of `paper` holds, in order."""
    return {
        table.table: TableCounts(
            len(table.rows),
            sum(not isinstance(value, str) for row in table.rows for value in row.values),
            sum(row.cell is not None for row in table.rows),
        )
        for table in paper.tables
    }
