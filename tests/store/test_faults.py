"""Everything that can be wrong with a results database is one line with a fix, and loses nothing that was stored."""

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import cell, result, run

from benchctl.errors import StoreError
from benchctl.record import Measurement
from benchctl.store import schema
from benchctl.store.store import Store
from benchctl.store.turn import turn

NOBODY = 65534
SHORT = 0.2


@pytest.fixture
def filled(database: Path) -> Path:
    with Store.open(database) as store:
        store.begin_run(run(), [cell(i) for i in range(100)])
        store.add_result("run-1", result(cell()))
    return database


def fails(open_or_use: Callable[[], object], what: str, fix: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_or_use()
    line = str(caught.value)
    assert what in line
    assert fix in line
    assert "\n" not in line
    assert caught.value.exit_code == 3


def intact(database: Path, results: int = 1) -> None:
    with Store.open(database) as store:
        assert len(store.latest_results([cell(i).id for i in range(100)])) == results
    with closing(sqlite3.connect(database)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("read_only", [True, False])
def test_there_is_none(tmp_path: Path, create: bool, read_only: bool) -> None:
    path = tmp_path / "new" / "results.db"
    if create and not read_only:
        Store.open(path, create=create).close()
        return
    fails(lambda: Store.open(path, create=create, read_only=read_only), f"{path}: there is no results database here", "benchctl run SUITE")
    assert not path.parent.exists()


def test_a_folder(tmp_path: Path) -> None:
    fails(lambda: Store.open(tmp_path), "a folder", "name a file in it")


def test_the_folder_is_a_file(filled: Path) -> None:
    fails(lambda: Store.open(filled / "results.db"), "cannot be opened", "in a folder that exists")


@pytest.mark.parametrize("read_only", [True, False])
def test_not_a_database(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("meeting at noon\n" * 1000)
    fails(lambda: Store.open(path, read_only=read_only), "not a results database", "give a file that benchctl made")
    assert path.read_text() == "meeting at noon\n" * 1000


@pytest.mark.parametrize("read_only", [True, False])
def test_somebody_elses_database(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE photos (name)")
    before = path.read_bytes()
    fails(lambda: Store.open(path, read_only=read_only), "not one of benchctl's", "another --db")
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_database(database: Path) -> None:
    database.touch()
    fails(lambda: Store.open(database, read_only=True), "holds no results yet", "benchctl run SUITE")
    with Store.open(database) as store:
        assert store.runs() == []


@pytest.mark.parametrize("read_only", [True, False])
def test_a_newer_version(filled: Path, read_only: bool) -> None:
    with closing(sqlite3.connect(filled)) as raw:
        raw.execute(f"PRAGMA user_version={schema.SCHEMA_VERSION + 1}")
    fails(lambda: Store.open(filled, read_only=read_only), "written by a newer benchctl", "upgrade benchctl")
    with closing(sqlite3.connect(filled)) as raw:
        raw.execute(f"PRAGMA user_version={schema.SCHEMA_VERSION}")
    intact(filled)


@pytest.mark.parametrize("read_only", [True, False])
def test_damaged_pages(filled: Path, read_only: bool) -> None:
    content = bytearray(filled.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    filled.write_bytes(content)

    def use() -> None:
        with Store.open(filled, read_only=read_only) as store:
            store.latest_results([cell().id])

    fails(use, "damaged", "restore a copy")


def test_a_truncated_file(filled: Path) -> None:
    filled.write_bytes(filled.read_bytes()[: 3 * 4096])

    def use() -> None:
        with Store.open(filled, read_only=True) as store:
            store.runs()

    fails(use, "damaged", "restore a copy")


def test_another_program_holds_the_lock(filled: Path) -> None:
    with Store.open(filled, busy_seconds=SHORT) as store, closing(sqlite3.connect(filled, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        fails(lambda: store.add_result("run-1", result(cell(1))), "another process is writing", "wait for it")
        fails(lambda: Store.open(filled, busy_seconds=SHORT), "another process is writing", "wait for it")
        assert len(store.runs()) == 1, "reading goes on"
        raw.execute("ROLLBACK")
        store.add_result("run-1", result(cell(1)))
    intact(filled, results=2)


def test_another_benchctl_has_its_turn(filled: Path) -> None:
    with Store.open(filled, busy_seconds=SHORT) as store:
        with turn(filled, SHORT):
            fails(lambda: store.put_prediction("k", "1"), "another process is writing", "its own --db")
            fails(lambda: Store.open(filled, busy_seconds=SHORT), "another process is writing", "its own --db")
            with Store.open(filled, read_only=True) as reader:
                assert len(reader.runs()) == 1, "reading goes on"
        store.put_prediction("k", "1")
    intact(filled)


def test_a_reader_sees_one_moment(filled: Path) -> None:
    with Store.open(filled) as writer, Store.open(filled, read_only=True) as reader:
        with reader.snapshot() as snapshot:
            before = snapshot.cells()
            writer.add_result("run-1", result(cell(1)))
            assert snapshot.cells() == before
        assert len(reader.latest_results([cell(i).id for i in range(3)])) == 2


def test_a_reader_cannot_write(store: Store, url: str) -> None:
    with Store.open(url, read_only=True) as reader:
        fails(lambda: reader.put_prediction("k", "1"), "cannot be written", "writable")
    assert store.get_prediction("k") is None


def test_full_disk(filled: Path) -> None:
    with Store.open(filled) as store:
        raw = store._engine.raw_connection()
        pages = raw.cursor().execute("PRAGMA page_count").fetchone()[0]
        raw.cursor().execute(f"PRAGMA max_page_count={pages + 4}")
        raw.close()
        many = [Measurement(metric="latency_seconds", value=0.1, rep=i) for i in range(5000)]
        fails(
            lambda: store.add_result("run-1", result(cell(1), *many)),
            "the disk is full; nothing that was stored is lost",
            "free some space",
        )
        assert set(store.latest_results([cell(0).id, cell(1).id])) == {cell(0).id}
        store.add_result("run-1", result(cell(2)))
    intact(filled, results=2)


@pytest.fixture
def public(filled: Path) -> Iterator[Path]:
    """A copy of the database where any user may come: in a folder of its own, that is not under this user's private one."""
    folder = Path(tempfile.mkdtemp(prefix="benchctl-test-"))
    folder.chmod(0o755)
    copy = folder / filled.name
    shutil.copy(filled, copy)
    yield copy
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(act: Callable[[], str]) -> str:
    """What `act` returns when somebody does it to whom permissions apply, in a process of its own."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            answer = act()
        except StoreError as error:
            answer = str(error)
        except BaseException as error:
            answer = f"not a StoreError: {error!r}"
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("file_mode", [0o444, 0o644])
def test_a_read_only_file_in_a_read_only_folder(public: Path, file_mode: int) -> None:
    public.chmod(file_mode if os.geteuid() == 0 else 0o444)
    public.parent.chmod(0o555)

    def write() -> str:
        Store.open(public, busy_seconds=SHORT).close()
        return "opened"

    def read() -> str:
        with Store.open(public, read_only=True) as store:
            return f"{len(store.runs())} run, {len(store.latest_results([cell().id]))} result"

    assert "the results database cannot be written; make the file and its folder writable" in as_nobody(write)
    assert as_nobody(read) == "1 run, 1 result"


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_new_database_in_a_read_only_folder(public: Path) -> None:
    public.parent.chmod(0o555)
    for path in (public.parent / "new.db", public.parent / "folder" / "new.db"):
        assert "cannot be written" in as_nobody(lambda path=path: str(Store.open(path)))


@pytest.mark.parametrize(
    ("url", "what", "fix"),
    [
        ("mysql://user@host/name", "stored in SQLite or PostgreSQL, not in 'mysql'", "use a path or postgresql://"),
        ("oracle://user@host/name", "not in 'oracle'", "postgresql://"),
        ("carrier+pigeon://roof", "not in 'carrier'", "postgresql://"),
        ("no url://at all", "not a database URL", "use a path"),
        ("sqlite://", "would lose its results", "name a file"),
        ("sqlite:///:memory:", "would lose its results", "name a file"),
        ("postgresql://user:port@host:x/name", "not a database URL", "postgresql://USER@HOST/NAME"),
    ],
)
def test_urls_that_name_no_store(url: str, what: str, fix: str) -> None:
    fails(lambda: Store.open(url), what, fix)


def test_sqlite_urls(database: Path) -> None:
    with Store.open(f"sqlite:///{database}") as store:
        assert str(store.location) == str(database)
    assert database.exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_an_unreachable_server(scheme: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    fails(
        lambda: Store.open(f"{scheme}://user:secret@127.0.0.1:1/name"), "no connection to the database server", "check that it is running"
    )


@pytest.mark.parametrize(
    "url", ["postgresql://user:secret@127.0.0.1:1/name", "postgresql://user:secret@host:port/name", "mysql://u:secret@h/n"]
)
def test_passwords_are_not_repeated(url: str) -> None:
    if "127" in url:
        pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    fails(lambda: Store.open("postgresql://user@127.0.0.1:1/name"), "needs the package psycopg", "pip install 'benchctl[postgresql]'")
