"""What is recorded stays as it is, whoever asks."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from store_samples import cell, result, run

from benchctl.store.store import Store

CHANGES = [
    "UPDATE results SET outcome = 'failed'",
    "DELETE FROM results",
    "UPDATE measurements SET value = 1",
    "DELETE FROM measurements",
    "INSERT INTO measurements VALUES (1, 'macs', '', 'measured', '', 0, 1, 'count', NULL)",
    "UPDATE cells SET method = 'mine'",
    "DELETE FROM cells",
    "UPDATE run_cells SET position = 9",
    "DELETE FROM run_cells",
    "UPDATE environments SET json = '{}'",
    "DELETE FROM runs",
    "UPDATE runs SET suite = 'other'",
    "UPDATE runs SET status = 'running', finished_at = NULL",
]
#: SQLite alone has this statement, which deletes without saying so
REPLACEMENTS = [
    "INSERT OR REPLACE INTO results SELECT result_id, run_id, cell_id, 'failed', 'x', device, started_at, seconds, notes, code, NULL, '[]' "
    "FROM results",
    "INSERT OR REPLACE INTO measurements SELECT result_id, metric, kind, source, device, rep, 1, unit, NULL FROM measurements",
    "INSERT OR REPLACE INTO cells SELECT cell_id, '{}', task, method, options, frames, resolution, batch_size, precision, attention, optimizer, "
    "pretrained, seed, dataset, memory_cap_bytes FROM cells",
    "INSERT OR REPLACE INTO environments SELECT digest, '{}' FROM environments",
    "INSERT OR REPLACE INTO run_cells SELECT run_id, cell_id, 9 FROM run_cells",
    "INSERT OR REPLACE INTO runs SELECT number, run_id, 'other', suite_json, command, environment, started_at, status, finished_at FROM runs",
]


def finished(store: Store) -> None:
    store.begin_run(run(), [cell()])
    store.add_result("run-1", result(cell()))
    store.finish_run("run-1", "finished")


@pytest.mark.parametrize("statement", CHANGES)
def test_changes_are_refused(store: Store, statement: str) -> None:
    finished(store)
    with pytest.raises(DBAPIError, match="what is recorded cannot be changed"), store._write() as connection:
        connection.exec_driver_sql(statement)
    assert store.measurements(1)[0].value == 7


@pytest.mark.parametrize("recursive", [True, False], ids=["our connection", "another program's connection"])
@pytest.mark.parametrize("statement", [*CHANGES, *REPLACEMENTS])
def test_another_program_is_refused_too(database: Path, statement: str, recursive: bool) -> None:
    with Store.open(database) as store:
        finished(store)
    with closing(sqlite3.connect(database)) as raw:
        raw.execute(f"PRAGMA recursive_triggers={'ON' if recursive else 'OFF'}")
        before = list(raw.iterdump())
        with pytest.raises(sqlite3.IntegrityError, match="what is recorded cannot be changed"):
            raw.execute(statement)
        raw.rollback()
        assert list(raw.iterdump()) == before


@pytest.mark.parametrize(
    "row",
    [
        "(1, 'loss', '', 'measured', '', 0, NULL, 'nats', NULL)",
        "(1, 'loss', '', 'measured', '', 0, 1.0, 'nats', 'but why')",
        "(1, 'loss', '', 'guessed', '', 0, 1.0, 'nats', NULL)",
        "(1, 'loss', '', 'measured', '', 0, 1.0, NULL, NULL)",
    ],
)
def test_rows_that_make_no_sense_are_refused(store: Store, row: str) -> None:
    with pytest.raises(DBAPIError), store._write() as connection:
        connection.exec_driver_sql(f"INSERT INTO measurements VALUES {row}")


def test_a_measurement_of_no_result_is_refused_at_commit(store: Store) -> None:
    with pytest.raises(DBAPIError), store._write() as connection:
        connection.exec_driver_sql("INSERT INTO measurements VALUES (1, 'loss', '', 'measured', '', 0, 1.0, 'nats', NULL)")


def test_sqlite_columns_keep_their_types(database: Path) -> None:
    with Store.open(database), closing(sqlite3.connect(database)) as raw:
        strict = dict(raw.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'"))
        assert strict, "no tables"
        assert all(strict.values()), strict
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER"):
            raw.execute("INSERT INTO cells VALUES ('id', '{}', 't', 'm', '', 'eight', 224, 1, 'p', 'a', 'o', 0, 0, NULL, NULL)")
