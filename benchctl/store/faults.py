"""Database faults as one line each: what is wrong with the results database, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from benchctl.errors import StoreError

_LOCKED = ("another process is writing to the results database", "wait for it to finish, or give this one its own --db")
_READ_ONLY = ("the results database cannot be written", "make the file and its folder writable, or give another --db")
_FULL = ("the disk is full; nothing that was stored is lost", "free some space and run the same command again")
_DAMAGED = ("the results database is damaged", "restore a copy, or move it away and start a new one")
_FOREIGN = ("not a results database", "give a file that benchctl made, or one that is not there yet")
_UNOPENED = ("the results database cannot be opened", "check that the path is a file you may read, in a folder that exists")
_UNREADABLE = ("the disk failed while the results database was read or written", "check the disk; what was reported as stored is on it")

#: primary SQLite result code -> what and fix
_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _FOREIGN,
    sqlite3.SQLITE_CANTOPEN: _UNOPENED,
    sqlite3.SQLITE_IOERR: _UNREADABLE,
}
#: PostgreSQL SQLSTATE, or its two-letter class -> what and fix
_POSTGRESQL = {
    "55P03": _LOCKED,
    # a deadlock, or a serialisation failure
    "40": _LOCKED,
    "25006": _READ_ONLY,
    "42501": _READ_ONLY,
    "53100": _FULL,
    "53": ("the database server is short of resources", "try again later"),
    "57": ("the database server is shutting down or starting up", "try again when it is up"),
    "XX": _DAMAGED,
}
_OS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
}


def locked(where: str) -> StoreError:
    """The error for a writer that waited in vain for another one."""
    return _error(_LOCKED, where)


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn database and file errors inside the block into a `StoreError` about `where`, a path or a URL without password.

    Errors that only a mistake in benchctl could cause (a missing table, a broken constraint) pass through as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise StoreError("PostgreSQL needs the package psycopg", where=where, fix="pip install 'benchctl[postgresql]'") from error
    except (DBAPIError, sqlite3.Error) as error:
        fault = _fault(error.orig if isinstance(error, DBAPIError) else error)
        if fault is None:
            raise
        raise _error(fault, where) from error
    except OSError as error:
        raise _error(_OS.get(error.errno or 0, _UNOPENED), where) from error


def _error(fault: tuple[str, str], where: str) -> StoreError:
    what, fix = fault
    return StoreError(what, where=where, fix=fix)


def _fault(cause: BaseException | None) -> tuple[str, str] | None:
    if isinstance(cause, sqlite3.Error):
        # the low byte is the primary code; the rest says more than a user can act on
        return _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _POSTGRESQL.get(state, _POSTGRESQL.get(state[:2]))
    if type(cause).__name__ in ("OperationalError", "ConnectionTimeout"):
        first = str(cause).strip().partition("\n")[0]
        return (f"no connection to the database server ({first})", "check that it is running, and address, user, password and name in --db")
    return None
