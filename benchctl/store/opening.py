"""Opening a results database: to read it as it is, or to write to it, created or migrated first."""

from __future__ import annotations

from contextlib import nullcontext

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from benchctl.errors import StoreError
from benchctl.store import migrations, schema
from benchctl.store.location import Access, Location
from benchctl.store.turn import turn

_RUN_A_SUITE = "run a suite into it first: benchctl run SUITE"


def writer(location: Location, timeout_seconds: float, *, create: bool) -> Engine:
    """An engine on a database that is there, is ours, is writable, and is of the version that this code knows.

    Raises:
        StoreError: it is not, and cannot be made so.
    """
    path = location.path
    _check_file(location, must_exist=not create)
    if path and create:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = location.engine("create" if create else "write", timeout_seconds)
    with turn(path, timeout_seconds) if path else nullcontext():
        try:
            _prepare(location, engine)
        except BaseException:
            engine.dispose()
            raise
    return engine


def reader(location: Location, timeout_seconds: float) -> Engine:
    """An engine that reads, takes no lock and changes nothing.

    Raises:
        StoreError: there is no database, or none that this code can read.
    """
    _check_file(location, must_exist=True)
    try:
        return _reader(location, "read", timeout_seconds)
    except OperationalError:
        if not location.path or _has_log(location):
            raise
        # SQLite needs its lock files beside the database and may not create them here; without a log nobody is writing either
        return _reader(location, "immutable", timeout_seconds)


def _prepare(location: Location, engine: Engine) -> None:
    path = location.path
    with engine.connect() as connection:
        fresh = migrations.version(connection, str(location)) == 0
    if fresh and path:
        # cannot be switched inside a transaction, and only here is the file known to be ours
        raw = engine.raw_connection()
        raw.cursor().execute("PRAGMA journal_mode=WAL")
        raw.close()
    # begun even when there is nothing to prepare: a read-only file is found out now, not after the first hour of a run
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        migrations.prepare(connection, str(location), lambda found: path and migrations.back_up(path, found))


def _reader(location: Location, access: Access, timeout_seconds: float) -> Engine:
    engine = location.engine(access, timeout_seconds)
    try:
        with engine.connect() as connection:
            found = migrations.version(connection, str(location))
        if found < schema.SCHEMA_VERSION:
            what = f"its tables, of version {found}, are older than this benchctl's" if found else "it holds no results yet"
            raise StoreError(what, where=str(location), fix=_RUN_A_SUITE)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _check_file(location: Location, *, must_exist: bool) -> None:
    path = location.path
    if path and path.is_dir():
        raise StoreError("a folder, not a results database", where=str(path), fix=f"name a file in it, for example {path / 'benchctl.db'}")
    if path and must_exist and not path.exists():
        raise StoreError("there is no results database here", where=str(path), fix=f"{_RUN_A_SUITE}, or correct --db")


def _has_log(location: Location) -> bool:
    log = location.path and location.path.with_name(f"{location.path.name}-wal")
    return bool(log and log.exists() and log.stat().st_size)
