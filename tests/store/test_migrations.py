"""Older databases are brought up to date whole, after a checked copy, or left as they were."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from store_samples import cell, result, run

from benchctl.errors import StoreError
from benchctl.store import migrations, schema
from benchctl.store.claims import Claim, ClaimAnswer
from benchctl.store.migrations import Migration
from benchctl.store.store import Store


def add_energy(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE results ADD COLUMN energy REAL")
    connection.exec_driver_sql("UPDATE results SET energy = 1.0")  # which the triggers would refuse


def fail(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE results ADD COLUMN half REAL")
    connection.exec_driver_sql("SELECT * FROM nothing")


def orphan(connection: Connection) -> None:
    connection.exec_driver_sql("DELETE FROM results")


@pytest.fixture
def filled(database: Path) -> Path:
    with Store.open(database) as store:
        store.begin_run(run(), [cell()])
        store.add_result("run-1", result(cell()))
    return database


def before_claims(path: Path) -> None:
    """Make `path` a database of version 2, as benchctl made them before cells were claimed."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DROP TABLE claims")
        raw.execute("PRAGMA user_version=2")


def test_a_database_without_claims_gets_them(filled: Path) -> None:
    new = read(filled, "SELECT * FROM pragma_table_info('claims')")
    before_claims(filled)
    with Store.open(filled) as store:
        assert store.measurements(1)[0].value == 7
        wanted = Claim(cell().id, "run-1", "here")
        assert store.claim(wanted, 60, after=1) is ClaimAnswer.CLAIMED
    assert read(filled, "SELECT * FROM pragma_table_info('claims')") == new
    assert read(filled, "SELECT strict, wr FROM pragma_table_list WHERE name = 'claims'") == [(1, 1)]
    assert read(filled, 'SELECT "table", "from" FROM pragma_foreign_key_list(\'claims\')') == [
        ("run_cells", "run_id"),
        ("run_cells", "cell_id"),
    ]


def test_a_server_without_claims_gets_them(postgresql: str) -> None:
    with Store.open(postgresql) as store, store._write() as connection:
        columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'claims'"
        new = connection.exec_driver_sql(columns).all()
        connection.exec_driver_sql("DROP TABLE claims")
        connection.exec_driver_sql("UPDATE benchctl_schema SET version = 2")
    with Store.open(postgresql) as store:
        with store._write() as connection:
            assert connection.exec_driver_sql(columns).all() == new
        store.begin_run(run(), [cell()])
        assert store.claim(Claim(cell().id, "run-1", "here"), 60) is ClaimAnswer.CLAIMED


NOW = schema.SCHEMA_VERSION
LATER = NOW + 2


def two_versions_on(monkeypatch: pytest.MonkeyPatch, second: Migration | None = None) -> None:
    steps = (Migration(NOW + 1, "energy", add_energy), second or Migration(LATER, "nothing", lambda connection: None))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, *steps))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", LATER)


def read(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as raw:
        return raw.execute(query).fetchall()


def test_migrations_are_numbered_without_gaps() -> None:
    assert [m.to for m in migrations.MIGRATIONS] == list(range(2, schema.SCHEMA_VERSION + 1))


def test_an_older_database_is_migrated_after_a_copy(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(filled, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    triggers = read(filled, "SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name")
    two_versions_on(monkeypatch)
    with Store.open(filled) as store:
        assert store.measurements(1)[0].value == 7
    assert read(filled, "PRAGMA user_version") == [(LATER,)]
    assert read(filled, "SELECT energy FROM results") == [(1.0,)]
    assert read(filled, "SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name") == triggers
    copy = filled.with_name(f"results.db.v{NOW}.backup")
    assert read(copy, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before
    assert read(copy, "SELECT count(*) FROM results") == [(1,)]
    assert sorted(p.name for p in filled.parent.glob("*backup*")) == [copy.name]


def test_a_reader_does_not_migrate(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_versions_on(monkeypatch)
    with pytest.raises(StoreError, match=f"its tables, of version {NOW}, are older than this benchctl's; run a suite into it"):
        Store.open(filled, read_only=True)
    assert read(filled, "PRAGMA user_version") == [(NOW,)]


@pytest.mark.parametrize(("step", "error"), [(fail, DBAPIError), (orphan, StoreError)])
def test_a_migration_that_fails_changes_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch, step, error) -> None:
    before = read(filled, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    with monkeypatch.context() as patch:
        two_versions_on(patch, Migration(LATER, "bad", step))
        with pytest.raises(error):
            Store.open(filled)
    assert read(filled, "PRAGMA user_version") == [(NOW,)]
    assert read(filled, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before
    with Store.open(filled) as store:
        assert store.measurements(1)[0].value == 7


def test_a_damaged_database_is_not_migrated(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(filled.read_bytes())
    content[-4096:] = b"\xa5" * 4096
    filled.write_bytes(content)
    two_versions_on(monkeypatch)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(filled)
    assert filled.read_bytes() == bytes(content)


def test_the_header_names_the_application(filled: Path) -> None:
    assert filled.read_bytes()[68:72] == b"bctl"
    assert read(filled, "PRAGMA journal_mode") == [("wal",)]


def test_the_copy_cannot_be_written(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.with_name(f"results.db.v{NOW}.backup").mkdir()
    two_versions_on(monkeypatch)
    with pytest.raises(StoreError, match=rf"results\.db\.v{NOW}\.backup"):
        Store.open(filled)
    assert read(filled, "PRAGMA user_version") == [(NOW,)]
