"""The results database: writers take turns, any number of readers, and nothing that was finished ever changes.

SQLite by default, PostgreSQL for a team. Several runs share one: each claims a cell before it executes it. What `add_result` returned
from is on disk, whatever happens to the process afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from benchctl.errors import StoreError, UsageError, unknown
from benchctl.record import CellResult, Measurement, RunRecord
from benchctl.spec import Cell, options_text
from benchctl.store import claims, opening, reading, schema
from benchctl.store.claims import Claim, ClaimAnswer, ClaimLost
from benchctl.store.faults import reported
from benchctl.store.location import Location
from benchctl.store.stored import StoredResult, StoredRun
from benchctl.store.turn import turn

BUSY_SECONDS = 30.0


class Store:
    """One open results database. Use it as a context manager, from one process; its threads may share it.

    Every method raises `StoreError`, one line, where the database is locked, damaged, read-only, full or out of reach.
    """

    def __init__(self, location: Location, engine: Engine, written: Path | None, timeout_seconds: float) -> None:
        self.location = location
        self._engine = engine
        #: the file that this store takes turns to write; None for a reader, and for a server, which has locks of its own
        self._written = written
        self._timeout = timeout_seconds

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True, read_only: bool = False, busy_seconds: float = BUSY_SECONDS) -> Self:
        """Open the database at `url`, a path or a SQLAlchemy URL of SQLite or PostgreSQL.

        Args:
            url: an older version is migrated, after a checked copy beside the file (`NAME.vN.backup`).
            create: make the database, and the folder it is in, where there is none.
            read_only: take no write lock, create nothing and migrate nothing.
            busy_seconds: how long to wait for another writer before giving up.

        Raises:
            StoreError: it cannot be opened, is not one of benchctl's, or is newer than this code.
        """
        location = Location.parse(str(url))
        with reported(str(location)):
            opened = opening.reader(location, busy_seconds) if read_only else opening.writer(location, busy_seconds, create=create)
        return cls(location, opened, None if read_only else location.path, busy_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give every connection back. The last one to close a SQLite file folds its log into it."""
        with reported(str(self.location)), self._turn():
            self._engine.dispose()

    def begin_run(self, run: RunRecord, cells: Sequence[Cell]) -> None:
        """Record a run and its plan, in order; cells that earlier runs finished belong to the plan too."""
        with self._write() as connection:
            digest = run.environment.digest
            _insert_new(connection, schema.environments, [{"digest": digest, "json": run.environment.model_dump_json()}])
            connection.execute(
                insert(schema.runs),
                {**run.model_dump(exclude={"environment"}), "environment": digest, "status": "running"},
            )
            _insert_new(connection, schema.cells, [_cell_values(c) for c in cells])
            planned = [{"run_id": run.run_id, "cell_id": c.id, "position": i} for i, c in enumerate(cells)]
            if planned:
                connection.execute(insert(schema.run_cells), planned)

    def finish_run(self, run_id: str, status: Literal["finished", "failed", "interrupted"]) -> None:
        """Record how a run ended; once."""
        with self._write() as connection:
            ended = {"status": status, "finished_at": _now()}
            found = connection.execute(update(schema.runs).where(schema.runs.c.run_id == run_id).values(ended)).rowcount
            if not found:
                raise StoreError(f"run '{run_id}' was never begun", where=str(self.location))

    def claim(self, claim: Claim, seconds: float, *, after: int | None = None) -> ClaimAnswer:
        """Take the right to execute a cell for `seconds`, also from a holder whose time is over.

        Args:
            claim: who wants which cell; its run must have planned it.
            seconds: until it must have been renewed.
            after: id of the newest attempt at the cell that the caller knows, or None; a newer one is the answer `ATTEMPTED`.
        """
        with self._write() as connection:
            return claims.take(connection, claim, seconds, after)

    def renew(self, claim: Claim, seconds: float) -> bool:
        """Hold `claim` for `seconds` from now; False: it is another's, or nobody's."""
        with self._write() as connection:
            return claims.renew(connection, claim, seconds)

    def release(self, claim: Claim) -> bool:
        """Give `claim` back; False: it was not held any more."""
        with self._write() as connection:
            return claims.release(connection, claim)

    def holders(self, cell_ids: Sequence[str]) -> dict[str, Claim]:
        """The claims on those of `cell_ids` that are held now, by cell id."""
        with self._read() as connection:
            return claims.holders(connection, cell_ids)

    def add_result(self, run_id: str, result: CellResult, claim: Claim | None = None) -> int:
        """Store one attempt at a cell with its measurements, in one transaction, and return its result id.

        With `claim`, that is released in the same transaction: whoever takes the cell next sees the result.

        Raises:
            ClaimLost: `claim` is not held any more; nothing is stored.
            StoreError: also where `run_id` did not plan the cell.
        """
        with self._write() as connection:
            if claim is not None and not claims.release(connection, claim):
                raise ClaimLost(f"the claim on cell '{claim.cell_id}' went to another run", where=str(self.location))
            planned = schema.run_cells.c
            if not connection.scalar(
                select(func.count()).where(planned.run_id == run_id, planned.cell_id == result.cell_id).select_from(schema.run_cells)
            ):
                raise StoreError(f"run '{run_id}' did not plan cell '{result.cell_id}'", where=str(self.location))
            number = _next_result(connection)
            if result.measurements:
                connection.execute(insert(schema.measurements), [_measurement_values(number, m) for m in result.measurements])
            connection.execute(insert(schema.results), _result_values(number, run_id, result))
            return number

    def latest_results(self, cell_ids: Sequence[str]) -> dict[str, StoredResult]:
        """The newest attempt at each of `cell_ids` that was attempted, by cell id."""
        with self._read() as connection:
            return reading.latest_results(connection, cell_ids)

    def get_prediction(self, key: str) -> str | None:
        """The JSON kept under `key`, or None."""
        with self._read() as connection:
            return connection.scalar(select(schema.predictions.c.json).where(schema.predictions.c.key == key))

    def put_prediction(self, key: str, content: str) -> None:
        """Keep `content`, JSON, under `key`, in place of what was there."""
        with self._write() as connection:
            values = {"key": key, "json": content, "created_at": _now()}
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            added = dialect.insert(schema.predictions).values(values)
            connection.execute(added.on_conflict_do_update(index_elements=["key"], set_={k: values[k] for k in ("json", "created_at")}))

    def runs(self) -> list[StoredRun]:
        """Every run, newest first."""
        with self._read() as connection:
            return reading.runs(connection)

    def run(self, run_id: str) -> StoredRun:
        """The run whose id is, or alone begins with, `run_id`.

        Raises:
            UnknownName: no run; with the nearest ids.
            UsageError: several runs.
        """
        with self._read() as connection:
            found = _one(connection, schema.runs.c.run_id, run_id, "run")
            return reading.runs(connection, found)[0]

    def cell(self, cell_id: str) -> Cell:
        """The cell whose id is, or alone begins with, `cell_id`.

        Raises:
            UnknownName: no cell; with the nearest ids.
            UsageError: several cells.
            StoreError: a cell that another version of benchctl resolved, which this one cannot read.
        """
        with self._read() as connection:
            found = _one(connection, schema.cells.c.cell_id, cell_id, "cell")
            canonical = connection.execute(select(schema.cells.c.canonical).where(schema.cells.c.cell_id == found)).scalar_one()
        content = json.loads(canonical)
        identity = content.pop("identity")
        try:
            return Cell.model_validate(content)
        except ValidationError as error:
            raise StoreError(
                f"cell '{found}' was resolved by another version of benchctl (identity {identity})",
                where=str(self.location),
                fix="use that version to show it",
            ) from error

    def measurements(self, result_id: int) -> tuple[Measurement, ...]:
        """Every measurement of one result, ordered by metric, kind, source, device and repetition."""
        with self._read() as connection:
            return reading.measurements(connection, result_id)

    @contextmanager
    def snapshot(self, *, suite: str | None = None, run: str | None = None) -> Iterator[reading.Snapshot]:
        """What a report reads: the planned cells of a suite, a run, or everything, all as of one moment; none if nothing was ever run.

        Args:
            suite: the cells of every run of the suite as it was last asked for; runs of an earlier wording of it are left out.
            run: the cells of this run (id or unique prefix), with the attempts known when it ran. None of both: every suite.

        Raises:
            UnknownName: no such suite or run; with the nearest names.
            UsageError: several runs begin with `run`.
        """
        with self._read() as connection:
            suites = reading.suites(connection)
            if suite is not None and suite not in suites and suites:
                raise unknown("suite", suite, suites, where=str(self.location))
            found = _one(connection, schema.runs.c.run_id, run, "run") if run is not None and suites else None
            if found is not None and suite is not None and reading.runs(connection, found)[0].record.suite != suite:
                raise UsageError(f"run '{found}' is not of suite '{suite}'", fix="leave one of them out")
            yield reading.Snapshot(connection, reading.Scope.of(connection, suite=suite, run=found))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            reported(str(self.location)),
            self._turn(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with reported(str(self.location)), self._engine.connect() as connection:
            if self.location.path is None:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def _turn(self) -> AbstractContextManager[None]:
        return turn(self._written, self._timeout) if self._written else nullcontext()


def _insert_new(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    """Insert the rows whose key is not there yet. The key is a hash of the content, so what is there is the same."""
    (key,) = table.primary_key
    # in one order for everybody: two runs that add the same cells at once would else wait for each other
    rows = sorted({row[key.name]: row for row in rows}.values(), key=lambda row: row[key.name])
    known = reading.present(connection, key, [row[key.name] for row in rows])
    new = [row for row in rows if row[key.name] not in known]
    if not new:
        return
    added: Any = insert(table)
    if connection.dialect.name == "postgresql":
        # another run may be adding the same cells at this moment; SQLite's write lock rules that out
        added = postgresql.insert(table).on_conflict_do_nothing()
    connection.execute(added, new)


def _next_result(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        number: int = connection.execute(select(schema.result_ids.next_value())).scalar_one()
        return number
    return int(connection.execute(select(func.coalesce(func.max(schema.results.c.result_id), 0))).scalar_one()) + 1


def _cell_values(cell: Cell) -> dict[str, Any]:
    same = ("task", "method", "precision", "attention", "pretrained", "seed", "memory_cap_bytes")
    return {
        **{name: getattr(cell, name) for name in same},
        **cell.shape.model_dump(),
        "cell_id": cell.id,
        "options": options_text(cell.changes),
        "canonical": cell.canonical,
        "optimizer": cell.recipe.optimizer,
        "dataset": cell.dataset.name if cell.dataset else None,
    }


def _result_values(number: int, run_id: str, result: CellResult) -> dict[str, Any]:
    same = ("cell_id", "reason", "device", "started_at", "seconds", "checkpoint")
    measured = sorted({(m.metric, m.kind, m.source, m.device) for m in result.measurements if m.value is not None})
    return {
        **{name: getattr(result, name) for name in same},
        "result_id": number,
        "run_id": run_id,
        "outcome": result.outcome.value,
        "notes": _json(result.notes),
        "code": _json(result.code),
        "measured": _json(measured),
    }


def _measurement_values(number: int, m: Measurement) -> dict[str, Any]:
    value = float(m.value) if isinstance(m.value, int) and abs(m.value) >= 2**63 else m.value  # SQLite's integers end there
    return {"result_id": number, **m.model_dump(), "value": value}


def _one(connection: Connection, column: Any, text: str, kind: str) -> str:
    ids = connection.execute(select(column).where(column.startswith(text, autoescape=True)).order_by(column).limit(6)).scalars().all()
    if text in ids or len(ids) == 1:
        return text if text in ids else str(ids[0])
    if ids:
        raise UsageError(f"{len(ids) if len(ids) < 6 else 'many'} {kind}s begin with '{text}'", fix=f"write more of one: {', '.join(ids)}")
    raise unknown(kind, text, connection.execute(select(column)).scalars())


def _json(value: Any) -> str:
    # a loss that became NaN is written as the word: JSON has no other form for it
    return to_json(value, inf_nan_mode="strings").decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
