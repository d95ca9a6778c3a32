"""Queries over the results database. Each picks only the rows and columns that its caller shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Subquery, and_, case, func, or_, select

from benchctl.record import UNITS, Environment, Measurement, Outcome, RunRecord
from benchctl.store import schema
from benchctl.store.stored import CellRow, MeasurementKey, Readings, StoredResult, StoredRun

#: ids in one query; SQLite takes 32,766 and PostgreSQL 65,535 parameters
_BATCH = 10_000

_cells, _runs, _planned, _results, _m = (
    schema.cells.c,
    schema.runs.c,
    schema.run_cells.c,
    schema.results.c,
    schema.measurements.c,
)


@dataclass(frozen=True)
class Scalar:
    """A number of which a result has at most one: a metric of the named kinds, from the named sources."""

    metric: str
    kinds: tuple[str, ...] = ("",)
    sources: tuple[str, ...] = ("measured",)


@dataclass(frozen=True)
class Scope:
    """The cells that a report is about: those planned by `run_ids`."""

    run_ids: tuple[str, ...]
    #: attempts of later runs than this number do not count; None: all count
    until: int | None

    @classmethod
    def of(cls, connection: Connection, *, suite: str | None, run: str | None) -> Scope:
        """The scope of a run, else of a suite as it was last asked for, else of every suite so."""
        rows = connection.execute(select(_runs.number, _runs.run_id, _runs.suite, _runs.suite_json).order_by(_runs.number.desc())).all()
        if run is not None:
            return cls((run,), next(row.number for row in rows if row.run_id == run))
        wording: dict[str, str] = {}
        for row in rows:
            wording.setdefault(row.suite, row.suite_json)
        return cls(tuple(r.run_id for r in rows if suite in (None, r.suite) and wording[r.suite] == r.suite_json), None)

    def planned(self) -> Subquery:
        """Each cell id once, with its place in the plans."""
        query = (
            select(_planned.cell_id, func.min(_runs.number).label("number"), func.min(_planned.position).label("position"))
            .join(schema.runs, _runs.run_id == _planned.run_id)
            .where(_planned.run_id.in_(self.run_ids))
            .group_by(_planned.cell_id)
        )
        return query.subquery()

    def newest(self) -> Select[tuple[int]]:
        """The id of the newest attempt at each cell that was attempted; an interrupted one counts only where there is no other."""
        chosen = select(_planned.cell_id).where(_planned.run_id.in_(self.run_ids))
        ended = func.max(case((_results.outcome != Outcome.INTERRUPTED.value, _results.result_id)))
        query = select(func.coalesce(ended, func.max(_results.result_id))).where(_results.cell_id.in_(chosen))
        if self.until is not None:
            known = select(_runs.run_id).where(_runs.number <= self.until)
            query = query.where(_results.run_id.in_(known))
        return query.group_by(_results.cell_id)


class Snapshot:
    """The cells that one report is about, as of one moment. Valid inside `Store.snapshot`."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self._connection = connection
        self._scope = scope

    def cells(self) -> list[CellRow]:
        """Every cell in scope with its newest attempt, in plan order."""
        planned = self._scope.planned()
        own = [c for c in schema.cells.columns if c.name != "canonical"]
        query = (
            select(*own).join(planned, planned.c.cell_id == _cells.cell_id).order_by(planned.c.number, planned.c.position, _cells.cell_id)
        )
        tried = (_results.cell_id, _results.result_id, _results.run_id, _results.outcome, _results.reason, _results.device)
        attempts = select(*tried, _results.seconds, _results.notes).where(_results.result_id.in_(self._scope.newest()))
        outcomes = {outcome.value: outcome for outcome in Outcome}
        parse = cache(json.loads)
        tails: dict[str, tuple[Any, ...]] = {}
        for cell_id, result_id, run_id, outcome, reason, device, seconds, notes in self._connection.execute(attempts):
            tails[cell_id] = (result_id, run_id, outcomes[outcome], reason, device, seconds, parse(notes))
        untried: tuple[Any, ...] = (None, None, None, None, None, None, {})
        return [CellRow(*row, *tails.get(row[0], untried)) for row in self._connection.execute(query)]

    def contents(self) -> dict[str, str]:
        """The canonical JSON of every cell in scope, by cell id."""
        planned = self._scope.planned()
        query = select(_cells.cell_id, _cells.canonical).join(planned, planned.c.cell_id == _cells.cell_id)
        return dict(self._connection.execute(query).tuples().all())

    def gpus(self) -> dict[str, tuple[str, ...]]:
        """The names of the GPUs of the machine, by run id, for every run that a result in scope is of."""
        return {run: tuple(gpu.name for gpu in environment.gpus) for run, environment in self.environments().items()}

    def scalars(self, wanted: Sequence[Scalar]) -> dict[int, tuple[float | int | None, ...]]:
        """One value per result and wanted number, by result id; None where it was not recorded. Repeated times are averaged.

        A number about a device counts where that is the device that the result was executed on.
        """
        query = (
            select(_m.result_id, *map(_summed_up, wanted))
            .join(schema.results, _results.result_id == _m.result_id)
            .where(
                _m.result_id.in_(self._scope.newest()),
                _m.metric.in_({s.metric for s in wanted}),
                # each repetition of a time has a row, and none of them is wanted
                _m.kind.in_({kind for s in wanted for kind in s.kinds}),
                or_(_m.device == "", _m.device == _results.device),
            )
            .group_by(_m.result_id)
        )
        units = [UNITS[s.metric] for s in wanted]
        return {number: tuple(map(exact, found, units)) for number, *found in self._connection.execute(query)}

    def environments(self) -> dict[str, Environment]:
        """The machine and installation, by run id, for every run that a result in scope is of."""
        used = select(_results.run_id).where(_results.result_id.in_(self._scope.newest()))
        query = select(_runs.run_id, schema.environments.c.json).join(schema.environments).where(_runs.run_id.in_(used))
        return {run: _environment(content) for run, content in self._connection.execute(query)}

    def measurements(self) -> dict[int, list[Measurement]]:
        """Every measurement in scope, by result id."""
        newest: list[Any] = list(self._connection.scalars(self._scope.newest()))
        return measurements_of(self._connection, newest)

    def readings(self, metric: str) -> list[Readings]:
        """The readings of `metric` by kind, source and device. Columns, because a row for each would be a million objects."""
        return self.readings_of([metric])[metric]

    def readings_of(self, metrics: Sequence[str]) -> dict[str, list[Readings]]:
        """As `readings`, of several metrics in one query, by metric."""
        key = (_m.result_id, _m.metric, _m.kind, _m.source, _m.device)
        query = (
            select(*key, func.max(_m.value), func.max(_m.reason))
            .where(_m.result_id.in_(self._scope.newest()), _m.metric.in_(metrics))
            .group_by(*key)
        )
        found: dict[str, dict[tuple[str, str, str], Readings]] = {metric: {} for metric in metrics}
        for result_id, metric, kind, source, device, value, reason in self._connection.execute(query):
            columns = found[metric]
            column = columns.get((kind, source, device))
            if column is None:
                column = columns[kind, source, device] = Readings(kind, source, device, {}, {})
            if value is None:
                column.reasons[result_id] = reason
            else:
                column.values[result_id] = exact(value, UNITS[metric])
        return {metric: list(columns.values()) for metric, columns in found.items()}


def present(connection: Connection, key: Any, values: Sequence[str]) -> set[str]:
    """Those of `values` that the column `key` holds."""
    found: set[str] = set()
    for chunk in batches(values):
        found.update(connection.execute(select(key).where(key.in_(chunk))).scalars())
    return found


def suites(connection: Connection) -> list[str]:
    """The name of every suite that was run."""
    return list(connection.execute(select(_runs.suite).distinct()).scalars())


def runs(connection: Connection, run_id: str | None = None) -> list[StoredRun]:
    """Every run, or only `run_id`, newest first."""
    planned = select(func.count()).select_from(schema.run_cells).where(_planned.run_id == _runs.run_id).scalar_subquery()
    added = select(func.count()).select_from(schema.results).where(_results.run_id == _runs.run_id).scalar_subquery()
    query = select(schema.runs, schema.environments.c.json, planned.label("planned"), added.label("added"))
    query = query.join(schema.environments).order_by(_runs.number.desc())
    if run_id is not None:
        query = query.where(_runs.run_id == run_id)
    names = [name for name in RunRecord.model_fields if name != "environment"]
    return [
        StoredRun(
            record=RunRecord(environment=_environment(row.json), **{name: getattr(row, name) for name in names}),
            status=row.status,
            finished_at=row.finished_at,
            cells=row.planned,
            results=row.added,
        )
        for row in connection.execute(query)
    ]


def latest_results(connection: Connection, cell_ids: Sequence[str]) -> dict[str, StoredResult]:
    """The newest attempt at each of `cell_ids`, by cell id."""
    found = {}
    for chunk in batches(cell_ids):
        newest = select(func.max(_results.result_id)).where(_results.cell_id.in_(chunk)).group_by(_results.cell_id)
        query = (
            select(schema.results, schema.environments.c.json.label("environment"))
            .join(schema.runs, _runs.run_id == _results.run_id)
            .join(schema.environments, schema.environments.c.digest == _runs.environment)
            .where(_results.result_id.in_(newest))
        )
        for row in connection.execute(query):
            found[row.cell_id] = StoredResult(
                result_id=row.result_id,
                run_id=row.run_id,
                cell_id=row.cell_id,
                outcome=Outcome(row.outcome),
                reason=row.reason,
                device=row.device,
                started_at=row.started_at,
                seconds=row.seconds,
                environment=_environment(row.environment),
                notes=json.loads(row.notes),
                code=json.loads(row.code),
                checkpoint=row.checkpoint,
                measured=_measured(row.measured),
            )
    return found


def measurements(connection: Connection, result_id: int) -> tuple[Measurement, ...]:
    """Every measurement of one result."""
    columns = [getattr(_m, name) for name in Measurement.model_fields]
    query = select(*columns).where(_m.result_id == result_id).order_by(_m.metric, _m.kind, _m.source, _m.device, _m.rep)
    return tuple(Measurement(**{**row._mapping, "value": exact(row.value, row.unit)}) for row in connection.execute(query))


def measurements_of(connection: Connection, result_ids: Sequence[int]) -> dict[int, list[Measurement]]:
    """Every measurement of several results, by result id; none of one that measured nothing."""
    columns = [getattr(_m, name) for name in Measurement.model_fields]
    found: dict[int, list[Measurement]] = {number: [] for number in result_ids}
    for start in range(0, len(result_ids), _BATCH):
        chunk = result_ids[start : start + _BATCH]
        for number, *row in connection.execute(select(_m.result_id, *columns).where(_m.result_id.in_(chunk))):
            values = dict(zip(Measurement.model_fields, row))
            # what is stored was checked when it was
            found[number].append(Measurement.model_construct(**{**values, "value": exact(values["value"], values["unit"])}))
    return found


def exact(value: Any, unit: str) -> Any:
    """`value` as an integer where its unit only has integers: PostgreSQL gives floats."""
    if unit in ("bytes", "count") and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _summed_up(scalar: Scalar) -> ColumnElement[Any]:
    # repetitions of a count are equal, and a mean would round those above 2**53
    over = func.max if UNITS[scalar.metric] in ("bytes", "count") else func.avg
    mine = and_(_m.metric == scalar.metric, _m.kind.in_(scalar.kinds), _m.source.in_(scalar.sources))
    return over(_m.value).filter(mine)


def batches(values: Iterable[str]) -> Iterator[list[str]]:
    """The different `values`, in lists that one query takes."""
    each = list(dict.fromkeys(values))
    for start in range(0, len(each), _BATCH):
        yield each[start : start + _BATCH]


@lru_cache(maxsize=1024)
def _environment(content: str) -> Environment:
    return Environment.model_validate_json(content)


@lru_cache(maxsize=1024)
def _measured(content: str) -> frozenset[MeasurementKey]:
    return frozenset(MeasurementKey(*key) for key in json.loads(content))
