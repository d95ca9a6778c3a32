"""Bringing a results database to the version of its tables that this code knows: from nothing, or from an older version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect

from benchctl.errors import StoreError
from benchctl.store import schema
from benchctl.store.faults import reported

#: holds the version where a database has no header field for it
_VERSION_TABLE = "benchctl_schema"
#: any constant: processes that prepare the same PostgreSQL database at once wait for each other on it
_PREPARING = schema.APPLICATION_ID


@dataclass(frozen=True)
class Migration:
    """One step from version `to - 1` to version `to`."""

    to: int
    summary: str
    #: runs inside one transaction, with the triggers away and foreign keys checked at its end
    apply: Callable[[Connection], None]


def _add_options(connection: Connection) -> None:
    # cells of version 1 could not say which options were changed
    connection.exec_driver_sql("ALTER TABLE cells ADD COLUMN options TEXT NOT NULL DEFAULT ''")


def _add_claims(connection: Connection) -> None:
    # until version 2 a lock file kept a second run off an SQLite database
    seconds, form = ("REAL", " STRICT, WITHOUT ROWID") if connection.dialect.name == "sqlite" else ("DOUBLE PRECISION", "")
    connection.exec_driver_sql(
        "CREATE TABLE claims (cell_id TEXT NOT NULL PRIMARY KEY, run_id TEXT NOT NULL, owner TEXT NOT NULL, "
        f"expires_at {seconds} NOT NULL, FOREIGN KEY(run_id, cell_id) REFERENCES run_cells (run_id, cell_id)){form}"
    )


#: in order; the last one's `to` is `schema.SCHEMA_VERSION`. Version 1 is where the tables began.
MIGRATIONS: tuple[Migration, ...] = (
    Migration(2, "cells name the options that were changed", _add_options),
    Migration(3, "cells are claimed by the run that executes them", _add_claims),
)


def version(connection: Connection, where: str) -> int:
    """Version of the tables that `connection` sees; 0 for a database that holds nothing yet.

    Raises:
        StoreError: the database belongs to something else, or to a newer benchctl.
    """
    found = _sqlite_version(connection) if connection.dialect.name == "sqlite" else _server_version(connection)
    if found is None:
        raise StoreError("a database, but not one of benchctl's", where=where, fix="give another --db")
    if found > schema.SCHEMA_VERSION:
        raise StoreError(
            f"written by a newer benchctl (tables of version {found}; this one knows {schema.SCHEMA_VERSION})",
            where=where,
            fix="upgrade benchctl, or give another --db",
        )
    return found


def prepare(connection: Connection, where: str, backup: Callable[[int], object]) -> None:
    """Create the tables, or migrate them after `backup(version)`, inside the write transaction that `connection` is in."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PREPARING})")
    found = version(connection, where)
    if found == schema.SCHEMA_VERSION:
        return
    if found == 0:
        schema.create(connection)
    else:
        backup(found)
        migrate(connection, found, where)
    _set_version(connection, created=found == 0)


def migrate(connection: Connection, found: int, where: str) -> None:
    """Apply every migration above version `found`, in order.

    Raises:
        StoreError: a migration left a row that refers to nothing; the transaction must be rolled back.
    """
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    _drop_triggers(connection)
    for migration in MIGRATIONS:
        if migration.to > found:
            migration.apply(connection)
    for statement in schema.sqlite_triggers() if sqlite else schema.postgresql_triggers():
        connection.exec_driver_sql(statement)
    if sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise StoreError(f"could not be migrated from version {found}: rows would refer to nothing", where=where, fix="report this")


def back_up(path: Path, found: int) -> Path:
    """A checked copy of the SQLite file `path`, of version `found`, beside it.

    Raises:
        StoreError: the copy cannot be written, or the database is damaged.
    """
    copy = path.with_name(f"{path.name}.v{found}.backup")
    unfinished = path.with_name(f"{copy.name}.unfinished")
    with reported(str(copy)):
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target)
            (answer,) = target.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            raise StoreError(f"the results database is damaged ({answer})", where=str(path), fix="restore a copy before it is migrated")
        unfinished.replace(copy)
    return copy


def _sqlite_version(connection: Connection) -> int | None:
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    found: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if application == schema.APPLICATION_ID:
        return found
    held = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
    return 0 if application == 0 and found == 0 and held == 0 else None


def _server_version(connection: Connection) -> int | None:
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        found: int = connection.exec_driver_sql(f"SELECT version FROM {_VERSION_TABLE}").scalar_one()
        return found
    # other tables may share the server's database, but not under our names
    return None if tables & set(schema.metadata.tables) else 0


def _set_version(connection: Connection, *, created: bool) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id={schema.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version={schema.SCHEMA_VERSION}")
        return
    if created:
        connection.exec_driver_sql(f"CREATE TABLE {_VERSION_TABLE} (version INTEGER NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO {_VERSION_TABLE} VALUES ({schema.SCHEMA_VERSION})")
    else:
        connection.exec_driver_sql(f"UPDATE {_VERSION_TABLE} SET version = {schema.SCHEMA_VERSION}")


def _drop_triggers(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        for name in connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'").scalars().all():
            connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
    else:
        connection.exec_driver_sql("DROP FUNCTION benchctl_refuse() CASCADE")
        connection.exec_driver_sql("DROP FUNCTION benchctl_seal() CASCADE")
