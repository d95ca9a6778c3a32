"""A PostgreSQL of the tests' own: on 127.0.0.1, in a temporary folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

#: the server refuses to run as root
UNPRIVILEGED = 65534


def absent() -> str | None:
    """Why none can be started here; None: one can."""
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if shutil.which(name) is None]
    if missing:
        return f"no PostgreSQL server is installed ({', '.join(missing)} not on PATH)"
    return None if find_spec("psycopg") else "psycopg is not installed"


@contextmanager
def server() -> Iterator[str]:
    """URL of a new, empty database named `test`, whose server runs inside the block."""
    folder = Path(tempfile.mkdtemp(prefix="benchctl-postgresql-"))
    as_whom: dict[str, int] = {}
    if os.geteuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
        as_whom = {"user": UNPRIVILEGED, "group": UNPRIVILEGED}

    def call(*command: str) -> None:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **as_whom)
        assert ended.returncode == 0, f"{command[0]}: {ended.stdout}{ended.stderr}"

    data, port = str(folder / "data"), _free_port()
    try:
        call("initdb", "--pgdata", data, "--username", "benchctl", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        # its output goes to a file: a pipe would stay open as long as the server
        call("pg_ctl", "start", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", options)
        try:
            _create_database(port)
            yield f"postgresql+psycopg://benchctl@127.0.0.1:{port}/test"
        finally:
            call("pg_ctl", "stop", "--pgdata", data, "--mode", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty(url: str) -> None:
    """Drop everything in the database at `url`, whose name must have `test` in it."""
    from sqlalchemy import create_engine, make_url

    parsed = make_url(url)
    assert "test" in (parsed.database or ""), "refusing to empty a database whose name does not have 'test' in it"
    engine = create_engine(parsed.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


def _create_database(port: int) -> None:
    import psycopg

    with psycopg.connect(f"postgresql://benchctl@127.0.0.1:{port}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE test")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
