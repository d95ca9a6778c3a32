"""What stored cells cost and score beside what papers print about the same systems. `--published` of the efficiency table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchctl import suite_file
from benchctl.errors import Inconclusive
from benchctl.report import published
from benchctl.report.footnotes import footnotes
from benchctl.report.published import MACS_KINDS, Entry, Number
from benchctl.report.readings import memory_values, of_cell, preference
from benchctl.report.table import (
    CELL_COLUMNS,
    NOT_RECORDED,
    OUTCOME_COLUMNS,
    Column,
    Selection,
    Show,
    Table,
    Value,
    absence,
    cell_values,
    outcome_values,
    selected,
)

if TYPE_CHECKING:
    from benchctl.store.reading import Snapshot
    from benchctl.store.store import Store
    from benchctl.store.stored import CellRow, Readings

TITLE = "what cells cost and score beside the numbers that papers have published"

_Counted = Literal["measured", "predicted"]
_SOURCES: tuple[_Counted, ...] = ("measured", "predicted")
_SCORED = ("train", "evaluate")
_NAMED = 8
#: metrics that count parameters, as columns
_PARAMETERS = ("params", "trainable_params")
#: how near two implementations of one system come: shares of the published number, and parameters
_MACS_APART = 0.01
_PARAMS_APART = 0.03
_FEW_PARAMS = 0.1e6


def _group(name: str, title: str, unit: str, show: Show, split: tuple[str, ...]) -> tuple[Column, ...]:
    """Ours, the published number, half a unit of its last digit, and the first over the second."""
    return (
        Column(f"ours_{name}", f"our\n{title}", unit, show=show, text="present", split=split),
        Column(f"published_{name}", f"published\n{title}", unit, show=show, text="present"),
        Column(f"published_{name}_half_digit", "published rounding", unit, show=show, text="never"),
        # a share of the published number: 100 % is agreement
        Column(f"ratio_{name}", f"our {title} /\npublished", "fraction", show="%", text="present", split=split),
    )


_MEMORY_SPLIT = ("memory_source", "memory_kind", "memory_device")
_COLUMNS = (
    Column("paper", "published\nin", text="varying"),
    Column("table", "table"),
    Column("row", "row"),
    *CELL_COLUMNS,
    Column("macs_source", "MACs source", text="never"),
    *_group("macs", "MACs", "count", "G", ("macs_source",)),
    Column("macs_kind", "MACs counted", text="varying"),
    Column("macs_views", "views in\nMACs", text="varying"),
    Column("params_source", "params source", text="never"),
    *_group("params", "params", "count", "M", ("params_source",)),
    Column("trainable_params_source", "trainable params source", text="never"),
    *_group("trainable_params", "trainable\nparams", "count", "M", ("trainable_params_source",)),
    Column("memory_kind", "memory kind", text="never"),
    Column("memory_source", "memory source", text="never"),
    Column("memory_device", "memory device", text="never"),
    *_group("peak_memory_bytes", "peak\nmemory", "bytes", "GiB", _MEMORY_SPLIT),
    *_group("top1", "top-1", "fraction", "%", ()),
    *OUTCOME_COLUMNS,
)


def build(store: Store, selection: Selection) -> Table:
    """One row per published row and selected cell that is about the same, in the order of the papers.

    MACs are ours of one view, in the convention of the published column, times the views that it contains. Memory is compared where the
    batch is the same, accuracy where the data set is; what a row does not compare is absent.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet, or none is about a published row.
        UsageError: a file of published numbers is wrong.
    """
    papers = [published.load(path) for path in published.shipped().values()]
    about = [entry for paper in papers for entry in published.entries(paper) if entry.row.cell is not None]
    with selected(store, selection) as (snapshot, cells):
        by_system = _by_system(cells)
        matched = [(entry, _matching(entry, by_system)) for entry in about]
        ours = _Ours(snapshot)
    pairs = [(entry, cell) for entry, found in matched for cell in found]
    if not pairs:
        which = f"of {selection}" if str(selection) else "stored"
        raise Inconclusive(f"no cell {which} is about a published row", where=str(store.location), fix=_suites_to_run(about))
    rows, shown = [], []
    for entry, cell in pairs:
        row = ours.compared(entry, cell)
        rows.append((entry.paper, entry.table, entry.row.label, *cell_values(cell), *row.values, *outcome_values(cell)))
        shown.append(row)
    notes = (
        *footnotes(*_cells_shown(pairs, shown)),
        *_remarks(pairs, shown),
        *_missing(matched),
    )
    return Table("efficiency-published", TITLE, _COLUMNS, tuple(rows), notes)


def _by_system(cells: Sequence[CellRow]) -> dict[tuple[str, str, int], list[CellRow]]:
    """Cells by method, options and resolution."""
    found: dict[tuple[str, str, int], list[CellRow]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.options, cell.resolution), []).append(cell)
    return found


def _matching(entry: Entry, cells: Mapping[tuple[str, str, int], Sequence[CellRow]]) -> list[CellRow]:
    """Profiles of the row's cell, and trained or evaluated cells of the data sets that it has scores of.

    A batch other than the published one leaves MACs and parameters as they are: it stands in where that is all there is.
    """
    key = entry.row.cell
    assert key is not None
    same = cells.get((key.method, key.options_text, key.resolution), ())
    costs = next((number for metric in ("macs", *_PARAMETERS, "peak_memory_bytes") if (number := entry.number(metric))), None)
    profiles = [c for c in same if costs is not None and c.task == "profile" and c.frames == key.frames]
    if profiles:
        batches = {c.batch_size for c in profiles}
        batch = key.batch_size if key.batch_size in batches else min(batches)
        profiles = [c for c in profiles if c.batch_size == batch]
    return profiles + [c for c in same if c.task in _SCORED and _score(entry, c) is not None]


def _score(entry: Entry, cell: CellRow) -> Number | None:
    """The published accuracy that is about `cell`."""
    key = entry.row.cell
    if key is None:
        return None
    frames = key.frames_printed if cell.frames == key.frames else cell.frames
    same = (n for n in entry.scores if n.dataset == cell.dataset and (n.protocol.frames or key.frames_printed) == frames)
    return next(same, None)


@dataclass(frozen=True)
class _Row:
    """One row's own values, and what its footnotes need."""

    values: tuple[Value, ...]
    #: what is compared: the published number and ours, which is None where there is none
    pairs: tuple[tuple[Number, float | int | None], ...]
    memory: tuple[Readings, ...]


class _Ours:
    """The numbers of stored cells that are compared, read in two queries."""

    def __init__(self, snapshot: Snapshot) -> None:
        from benchctl.store.reading import Scalar

        names = [("macs", kind) for kind in MACS_KINDS]
        names += [(metric, "") for metric in _PARAMETERS]
        wanted: dict[tuple[str, str, str], Scalar] = {
            (metric, kind, source): Scalar(metric, (kind,), (source,)) for metric, kind in names for source in _SOURCES
        }
        wanted["top1", "", "measured"] = Scalar("top1")
        self._keys = list(wanted)
        self._scalars = snapshot.scalars(list(wanted.values()))
        self._memory = sorted(snapshot.readings("peak_memory_bytes"), key=preference)

    def compared(self, entry: Entry, cell: CellRow) -> _Row:
        """The numbers of `cell` beside those of `entry`."""
        profile = cell.task == "profile"
        macs = entry.number("macs") if profile else None
        parameters = [(metric, entry.number(metric) if profile else None) for metric in _PARAMETERS]
        memory = entry.number("peak_memory_bytes") if profile and cell.batch_size == getattr(entry.row.cell, "batch_size", None) else None
        score = None if profile else _score(entry, cell)

        macs_source, one_view = self._counted(cell, "macs", macs.kind) if macs else (None, None)
        views = macs.counted_views if macs else None
        our_macs = one_view * views if one_view is not None and views else None
        our_parameters = [(number, *(self._counted(cell, metric, "") if number else (None, None))) for metric, number in parameters]
        readings = of_cell(cell, self._memory)[:1] if memory else []
        kind, origin, device, peak, _ = memory_values(cell, readings[0] if readings else None)
        our_peak = None if isinstance(peak, str) or memory is None else peak
        memory_origin = (kind, origin, device) if memory else (NOT_RECORDED,) * 3
        our_score = self._value(cell, ("top1", "", "measured")) if score else None

        values = (
            macs_source or absence(cell),
            *_beside(cell, our_macs, macs),
            macs.kind if macs else NOT_RECORDED,
            views or NOT_RECORDED,
            *(value for number, source, our in our_parameters for value in (source or absence(cell), *_beside(cell, our, number))),
            *memory_origin,
            *_beside(cell, our_peak, memory),
            *_beside(cell, our_score, score),
        )
        pairs = ((macs, our_macs), *((number, our) for number, _, our in our_parameters), (memory, our_peak), (score, our_score))
        return _Row(values, tuple((number, our) for number, our in pairs if number is not None), tuple(readings))

    def _counted(self, cell: CellRow, metric: str, kind: str) -> tuple[_Counted | None, float | int | None]:
        """Our count and its source; a measured one before a predicted one."""
        for source in _SOURCES:
            value = self._value(cell, (metric, kind, source))
            if value is not None:
                return source, value
        return None, None

    def _value(self, cell: CellRow, key: tuple[str, str, str]) -> float | int | None:
        numbers = self._scalars.get(cell.result_id) if cell.result_id is not None else None
        return numbers[self._keys.index(key)] if numbers else None


def _beside(cell: CellRow, our: float | int | None, number: Number | None) -> tuple[Value, Value, Value, Value]:
    """The values of one group of columns."""
    if number is None or number.value is None or number.half_digit is None:
        return (NOT_RECORDED,) * 4
    if our is None:
        return (absence(cell), number.value, number.half_digit, absence(cell))
    return (our, number.value, number.half_digit, our / number.value)


def _cells_shown(pairs: Sequence[tuple[Entry, CellRow]], shown: Sequence[_Row]) -> tuple[list[CellRow], list[list[Readings]]]:
    """Each cell once, with its memory readings that are shown: several published rows may be about one cell."""
    cells = {cell.cell_id: cell for _, cell in pairs}
    memory: dict[str, list[Readings]] = {cell_id: [] for cell_id in cells}
    for (_, cell), row in zip(pairs, shown):
        memory[cell.cell_id] += [reading for reading in row.memory if reading not in memory[cell.cell_id]]
    return list(cells.values()), list(memory.values())


def _remarks(pairs: Sequence[tuple[Entry, CellRow]], shown: Sequence[_Row]) -> Iterator[str]:
    """What a reader must know about the published numbers that are shown, each thing once."""
    numbers = [number for row in shown for number, _ in row.pairs]
    yield from dict.fromkeys(f"Published {_WORDS[n.metric]}: {n.note}" for n in numbers if n.note)
    if any(n.metric == "top1" for n in numbers):
        yield "Published accuracies are those of the paper's training and views, ours those of this suite's budget and recipe."
    lacking = [
        number.kind
        for (_, cell), row in zip(pairs, shown)
        for number, our in row.pairs
        if number.metric == "macs" and our is None and absence(cell) == NOT_RECORDED
    ]
    for kind in dict.fromkeys(lacking):
        yield f"MACs counted '{kind}' are not recorded for {lacking.count(kind)} of these rows: no other count stands in for them."
    other = sum(
        cell.task == "profile" and entry.number("peak_memory_bytes") is not None and entry.row.cell.batch_size != cell.batch_size
        for entry, cell in pairs
        if entry.row.cell is not None
    )
    if other:
        yield f"The published memory of {other} of these rows is of another batch than the stored cell, and is not compared."
    yield from _differences(pairs, shown)
    yield from dict.fromkeys(f"{where}: {text}" for entry, _ in pairs for where, text in _remarks_of(entry))


def _differences(pairs: Sequence[tuple[Entry, CellRow]], shown: Sequence[_Row]) -> Iterator[str]:
    """How many differences are only rounding, and which costs differ although no reason stands in the published file."""
    apart = hidden = 0
    unexplained: dict[str, None] = {}
    for (entry, _), row in zip(pairs, shown):
        for number, our in row.pairs:
            if our is None or number.value is None or our == number.value:
                continue
            apart += 1
            hidden += _rounded(number, our)
            if not (_rounded(number, our) or _agrees(number, our) or number.metric in entry.row.exception):
                unexplained[f"{entry.paper} {entry.table} {entry.row.label} ({_WORDS[number.metric]})"] = None
    if hidden:
        yield f"Rounding of the published number alone explains {hidden} of {apart} differences."
    if unexplained:
        # all of them: each is something to look into
        limits = f"{_MACS_APART * 100:g} % of MACs or over both {_PARAMS_APART * 100:g} % and {_FEW_PARAMS / 1e6:g} M of parameters"
        yield f"Differences of over {limits}, for which no reason is recorded: {'; '.join(unexplained)}."


def _agrees(number: Number, our: float) -> bool:
    """Whether a count is as near as another implementation of the same system comes; memory and accuracy are not held to it."""
    assert number.value is not None
    apart = abs(our - number.value)
    if number.metric == "macs":
        return apart <= _MACS_APART * number.value
    return number.metric not in _PARAMETERS or apart <= max(_PARAMS_APART * number.value, _FEW_PARAMS)


def _rounded(number: Number, our: float) -> bool:
    """Whether ours would be printed as the published number is."""
    return number.value is not None and number.half_digit is not None and abs(our - number.value) <= number.half_digit


def _remarks_of(entry: Entry) -> Iterator[tuple[str, str]]:
    place = f"{entry.paper} Table {entry.table}, {entry.row.label}"
    for metric, reason in entry.row.exception.items():
        yield f"Exception: {place}, {_WORDS.get(metric, metric)}", reason
    if entry.row.note:
        yield place, entry.row.note


_WORDS = {
    "macs": "MACs",
    "params": "parameters",
    "trainable_params": "trainable parameters",
    "peak_memory_bytes": "peak memory",
    "top1": "top-1",
}


def _missing(matched: Sequence[tuple[Entry, list[CellRow]]]) -> Iterator[str]:
    """Published rows that benchctl can run and that no selected cell is about: counted, not hidden."""
    tables: dict[str, int] = {}
    for entry, found in matched:
        if not found:
            name = f"{entry.paper} {entry.table}"
            tables[name] = tables.get(name, 0) + 1
    if tables:
        named = ", ".join(f"{name}: {count}" for name, count in list(tables.items())[:_NAMED])
        more = f" and {len(tables) - _NAMED} more tables" if len(tables) > _NAMED else ""
        yield f"Published rows without a stored cell: {sum(tables.values())} of {len(matched)} ({named}{more})."


def _suites_to_run(about: Sequence[Entry]) -> str:
    """Which shipped suites have cells that published rows are about, most of them first."""
    wanted = {entry.row.cell.method for entry in about if entry.row.cell is not None}
    shared: dict[str, int] = {}
    for name, path in suite_file.shipped().items():
        suite = suite_file.load(str(path)).suite
        methods = [method for entry in suite.sweep for method in entry.methods or suite.methods]
        shared[name] = len(wanted & {method.name for method in methods})
    best = sorted((name for name, count in shared.items() if count), key=lambda name: -shared[name])
    return f"run one first: benchctl run {' or '.join(best)}" if best else f"run a suite with one of {', '.join(sorted(wanted))}"
