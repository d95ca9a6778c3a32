"""Where a results database is, and engines that speak to it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from benchctl.errors import StoreError
from benchctl.store.faults import reported
from benchctl.store.schema import DIALECTS

#: `immutable` is for a file in a folder where SQLite may not even create its lock files
Access = Literal["create", "write", "read", "immutable"]
_SQLITE_MODES: dict[Access, str] = {"create": "mode=rwc", "write": "mode=rw", "read": "mode=ro", "immutable": "immutable=1"}
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Location:
    """A results database, by URL or path."""

    url: URL
    #: the file, for SQLite
    path: Path | None

    @classmethod
    def parse(cls, text: str) -> Location:
        """The location that `text`, a path or a SQLAlchemy URL, names.

        Raises:
            StoreError: not a URL, a dialect whose results could not be protected, or a database in memory.
        """
        if "://" not in text:
            return cls(URL.create("sqlite", database=text), Path(text))
        try:
            url = make_url(text)
        except (ArgumentError, ValueError) as error:  # a port that is not a number is a ValueError
            # the text is not repeated: it may have a password in it
            fix = "use a path, sqlite:///PATH or postgresql://USER@HOST/NAME"
            raise StoreError("not a database URL", where=f"{text.partition('://')[0]}://...", fix=fix) from error
        dialect = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
        if dialect not in DIALECTS:
            raise StoreError(
                f"results are stored in SQLite or PostgreSQL, not in '{dialect}'", where=_shown(url), fix="use a path or postgresql://"
            )
        if dialect == "postgresql":
            return cls(url.set(drivername="postgresql+psycopg"), None)
        if not url.database or url.database == ":memory:":
            raise StoreError("a database in memory would lose its results", where=text, fix="name a file, for example sqlite:///results.db")
        return cls(url, Path(url.database))

    def __str__(self) -> str:
        return str(self.path) if self.path else _shown(self.url)

    @property
    def has_password(self) -> bool:
        """Whether a password stands in the URL."""
        return self.url.password is not None or any("password" in name.lower() for name in self.url.query)

    def engine(self, access: Access, timeout_seconds: float) -> Engine:
        """An engine whose write transactions take the write lock at their start, and wait for it up to `timeout_seconds`.

        A connection with the execution option `writes=True` begins a write transaction; any other one reads one snapshot.
        """
        if self.path is None:
            return self._postgresql(access, timeout_seconds)
        uri = f"{self.path.absolute().as_uri()}?{_SQLITE_MODES[access]}"

        def connect() -> sqlite3.Connection:
            # isolation_level=None: the driver's own BEGIN would leave DDL outside the transaction.
            # The pool hands a connection to one thread at a time, so the driver need not tie it to its first.
            raw = sqlite3.connect(uri, uri=True, timeout=timeout_seconds, isolation_level=None, check_same_thread=False)
            for pragma in ("foreign_keys=ON", "recursive_triggers=ON", "synchronous=FULL"):
                raw.execute(f"PRAGMA {pragma}")
            return raw

        engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
        event.listen(engine, "begin", _begin)
        return engine

    def _postgresql(self, access: Access, timeout_seconds: float) -> Engine:
        limits = f"-c lock_timeout={int(timeout_seconds * 1000)}"
        if access == "read":
            limits += " -c default_transaction_read_only=on"
        with reported(str(self)):
            # claims need each statement to see what others committed before it, whatever the server's default is;
            # and a connection that was idle through hours of training may be gone
            return create_engine(
                self.url,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                connect_args={"connect_timeout": _CONNECT_SECONDS, "options": limits},
            )


def _begin(connection: Connection) -> None:
    # a plain BEGIN that reads and then writes fails at once when another writer came between; IMMEDIATE waits its turn
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
