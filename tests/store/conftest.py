"""A store on SQLite, and on PostgreSQL where BENCHCTL_TEST_POSTGRES names an empty database whose name has `test` in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from benchctl.store.store import Store

SERVER = os.environ.get("BENCHCTL_TEST_POSTGRES")


def _emptied(url: str) -> str:
    assert "test" in (make_url(url).database or ""), "refusing to empty a database whose name does not have 'test' in it"
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.skipif(not SERVER, reason="BENCHCTL_TEST_POSTGRES names no database")),
    ]
)
def url(request: pytest.FixtureRequest, database: Path) -> str:
    return str(database) if request.param == "sqlite" else _emptied(str(SERVER))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened
