"""Tables of the results database, and the triggers that freeze what was recorded.

    environments ◄── runs ◄── run_cells ──► cells        what was asked for, and where
                                  ▲
                               results ◄── measurements  one result per attempt at a cell
    claims                                               who executes a cell now, and until when: run_cells ◄── claims
    predictions                                          a cache

Claims and predictions are the only rows that may change.

A result is written measurements first: its own row seals it, after which nothing can be added, changed or deleted.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine, UserDefinedType

#: "bctl" in ASCII: what `file` and SQLite's `PRAGMA application_id` show
APPLICATION_ID = 0x6263746C
#: version of the tables below; a change to them comes with a migration to the new number
SCHEMA_VERSION = 3
#: dialects whose triggers stand below; results that anyone could change are no results, so there are no others
DIALECTS = ("sqlite", "postgresql")


class _Any(UserDefinedType[Any]):
    """SQLite's ANY: an integer stays an exact integer, which REAL would round above 2**53."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "ANY"


_number: TypeEngine[Any] = Double().with_variant(_Any(), "sqlite")
_seconds: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")
_large = BigInteger().with_variant(Integer(), "sqlite")
_flag = Boolean(create_constraint=False).with_variant(Integer(), "sqlite")

metadata = MetaData()
#: result ids on PostgreSQL; SQLite takes the next number under its write lock
result_ids = Sequence("result_ids", metadata=metadata)


def _table(name: str, *parts: Any, rowid: bool = True) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True, sqlite_with_rowid=rowid)


environments = _table(
    "environments",
    Column("digest", Text, primary_key=True),
    Column("json", Text, nullable=False),
)
runs = _table(
    "runs",
    Column("number", Integer, primary_key=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("suite", Text, nullable=False),
    Column("suite_json", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("environment", Text, ForeignKey("environments.digest"), nullable=False),
    Column("started_at", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("finished_at", Text),
    CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished_has_a_time"),
    Index("runs_by_suite", "suite", "number"),
)
cells = _table(
    "cells",
    Column("cell_id", Text, primary_key=True),
    Column("canonical", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("method", Text, nullable=False),
    # changed options of the method's preset, as a person reads them; empty: none
    Column("options", Text, nullable=False, server_default=""),
    Column("frames", Integer, nullable=False),
    Column("resolution", Integer, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("precision", Text, nullable=False),
    Column("attention", Text, nullable=False),
    Column("optimizer", Text, nullable=False),
    Column("pretrained", _flag, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("dataset", Text),
    Column("memory_cap_bytes", _large),
    rowid=False,
)
run_cells = _table(
    "run_cells",
    Column("run_id", Text, ForeignKey("runs.run_id"), primary_key=True),
    Column("cell_id", Text, ForeignKey("cells.cell_id"), primary_key=True),
    Column("position", Integer, nullable=False),
    rowid=False,
)
results = _table(
    "results",
    Column("result_id", Integer, primary_key=True, autoincrement=False),
    Column("run_id", Text, nullable=False),
    Column("cell_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("device", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("seconds", _seconds, nullable=False),
    Column("notes", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("checkpoint", Text),
    # [[metric, kind, source, device], ...]: lets a plan ask what 10,000 results hold without reading their measurements
    Column("measured", Text, nullable=False),
    ForeignKeyConstraint(["run_id", "cell_id"], ["run_cells.run_id", "run_cells.cell_id"]),
    Index("results_by_cell", "cell_id", "result_id"),
    Index("results_by_run", "run_id"),
)
measurements = _table(
    "measurements",
    Column("result_id", Integer, ForeignKey("results.result_id", deferrable=True, initially="DEFERRED"), primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("rep", Integer, primary_key=True),
    Column("value", _number),
    Column("unit", Text, nullable=False),
    Column("reason", Text),
    # also turns away NaN, which SQLite stores as NULL
    CheckConstraint("(value IS NULL) = (reason IS NOT NULL)", name="absence_has_a_reason"),
    CheckConstraint("source IN ('measured', 'predicted', 'published')", name="source_is_named"),
    rowid=False,
)
claims = _table(
    "claims",
    Column("cell_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    # host and process, for people
    Column("owner", Text, nullable=False),
    # seconds since 1970, by the clock of the server; of SQLite, by that of the machine
    Column("expires_at", _seconds, nullable=False),
    ForeignKeyConstraint(["run_id", "cell_id"], ["run_cells.run_id", "run_cells.cell_id"]),
    rowid=False,
)
predictions = _table(
    "predictions",
    Column("key", Text, primary_key=True),
    Column("json", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    rowid=False,
)

_FROZEN = (environments, cells, run_cells, results)


def sqlite_triggers() -> list[str]:
    """Statements that create SQLite's triggers.

    `INSERT OR REPLACE` deletes without firing delete triggers unless the connection has `recursive_triggers` on, which another
    program's connection has not; so each table also turns away the insertion of a key that it holds.
    """
    made = []
    for table in (*_FROZEN, measurements):
        made.append(_sqlite_refusal(table, "update", "UPDATE"))
    for table in (*_FROZEN, measurements, runs):
        made.append(_sqlite_refusal(table, "delete", "DELETE"))
    for table in (*_FROZEN, runs):
        keys = ["run_id"] if table is runs else [c.name for c in table.primary_key]
        same = " AND ".join(f"{k} = NEW.{k}" for k in keys)
        made.append(_sqlite_refusal(table, "replace", "INSERT", f"WHEN EXISTS (SELECT 1 FROM {table.name} WHERE {same})"))
    sealed = "WHEN EXISTS (SELECT 1 FROM results WHERE result_id = NEW.result_id)"
    made.append(_sqlite_refusal(measurements, "seal", "INSERT", sealed))
    made.append(_sqlite_refusal(runs, "update", f"UPDATE OF {_run_identity()}"))
    made.append(_sqlite_refusal(runs, "finish", "UPDATE OF status, finished_at", "WHEN OLD.finished_at IS NOT NULL"))
    return made


def _sqlite_refusal(table: Table, name: str, event: str, when: str = "") -> str:
    say = f"SELECT RAISE(ABORT, '{table.name}: what is recorded cannot be changed')"
    return f"CREATE TRIGGER {table.name}_{name} BEFORE {event} ON {table.name} {when} BEGIN {say}; END"


def _run_identity() -> str:
    return ", ".join(c.name for c in runs.columns if c.name not in ("status", "finished_at"))


def postgresql_triggers() -> list[str]:
    """Statements that create PostgreSQL's triggers."""
    refuse = "RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ': what is recorded cannot be changed'"
    made = [
        f"CREATE FUNCTION benchctl_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse}; END $$",
        "CREATE FUNCTION benchctl_seal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF EXISTS (SELECT 1 FROM results WHERE result_id = NEW.result_id) THEN {refuse}; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER measurements_seal BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION benchctl_seal()",
        f"CREATE TRIGGER runs_update BEFORE UPDATE OF {_run_identity()} ON runs FOR EACH STATEMENT EXECUTE FUNCTION benchctl_refuse()",
        "CREATE TRIGGER runs_finish BEFORE UPDATE OF status, finished_at ON runs FOR EACH ROW "
        "WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION benchctl_refuse()",
        "CREATE TRIGGER runs_delete BEFORE DELETE OR TRUNCATE ON runs FOR EACH STATEMENT EXECUTE FUNCTION benchctl_refuse()",
    ]
    for table in (*_FROZEN, measurements):
        made.append(
            f"CREATE TRIGGER {table.name}_frozen BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION benchctl_refuse()"
        )
    return made


def create(connection: Connection) -> None:
    """Create every table, index and trigger, inside the transaction that `connection` is in."""
    metadata.create_all(connection, checkfirst=False)
    sqlite = connection.dialect.name == "sqlite"
    for statement in sqlite_triggers() if sqlite else postgresql_triggers():
        connection.exec_driver_sql(statement)
