"""Databases that are full, damaged, locked, killed or gone: which error, and that nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.engine import make_url

from servers import PostgresServer
from taut.adapters.records import open_postgres, open_sqlite
from taut.adapters.records.sqlite import SqliteRecords
from taut.core.errors import Conflict, Corrupt, InvalidInput, TautError, Unavailable
from taut.ports.records import Records, transact
from taut.testing.conformance.records import metadata, names, things
from taut.testing.records import create_tables

Open = Callable[..., Records]

# Newer Pythons warn of a fork where threads run; the children here use nothing that a thread could hold.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteRecords]:
    records = open_sqlite(tmp_path / "taut.db", lock_timeout_s=0.3)
    create_tables(records, metadata)
    yield records
    records.close()


def put(records: Records, id_: int, *, body: str = "") -> None:
    with records.begin() as tx:
        tx.execute(insert(things).values(id=id_, name=str(id_), body=body))


# SQLite


def test_sqlite_is_opened_with_what_durability_needs(sqlite: SqliteRecords, tmp_path: Path) -> None:
    with sqlite.begin() as tx:
        settings = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    with sqlite.read() as tx:
        assert tx.exec_driver_sql("PRAGMA query_only").scalar() == 1

    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert (tmp_path / "taut.db").stat().st_mode & 0o777 == 0o600


def test_a_full_database_is_unavailable_and_works_again_when_there_is_room(sqlite: SqliteRecords) -> None:
    put(sqlite, 1)
    with sqlite.begin() as tx:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(Unavailable, match="disk is full, nothing was written"):
        put(sqlite, 2, body="x" * 100_000)
    with sqlite.begin() as tx:
        tx.exec_driver_sql("PRAGMA max_page_count=1000000")
    put(sqlite, 3, body="x" * 100_000)

    assert names(sqlite) == ["1", "3"]


def test_a_disk_that_fills_up_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write in the middle, with EFBIG."""
    program = f"""
import pathlib, resource, signal
from sqlalchemy import insert
from taut.adapters.records import open_sqlite
from taut.core.errors import Unavailable
from taut.testing.conformance.records import metadata, things
from taut.testing.records import create_tables
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
records = open_sqlite(pathlib.Path({str(tmp_path / "taut.db")!r}))
create_tables(records, metadata)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for id in range(1000):
    try:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=id, name=str(id), body="x" * 5000))
    except Unavailable as error:
        print(error)
        break
    print(id, flush=True)
"""
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, timeout=60)
    *acknowledged, error = done.stdout.splitlines()
    records = open_sqlite(tmp_path / "taut.db")

    assert done.returncode == 0, done.stderr
    assert "look at its disk" in error or "disk is full" in error
    assert sorted(acknowledged) == names(records)
    with records.read() as tx:
        assert tx.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    records.close()


def test_a_writer_that_waits_too_long_for_another_process_is_told_so(
    sqlite: SqliteRecords, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "taut.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(Unavailable, match="another process has been writing too long"):
        put(sqlite, 1)
    waited = time.monotonic() - start
    other.execute("ROLLBACK")
    other.close()
    put(sqlite, 2)

    assert 0.2 < waited < 30
    assert names(sqlite) == ["2"]


def test_a_writer_that_waits_too_long_for_another_thread_is_told_so(sqlite: SqliteRecords) -> None:
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite.begin():
            begun.set()
            assert end.wait(90)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(90)
    try:
        with pytest.raises(Unavailable, match="another thread has been writing"):
            put(sqlite, 1)
    finally:
        end.set()
        thread.join(90)
    put(sqlite, 2)

    assert names(sqlite) == ["2"]


def test_a_second_transaction_inside_the_first_is_a_mistake_that_is_named(sqlite: SqliteRecords) -> None:
    with pytest.raises(AssertionError, match="pass its tx on"), sqlite.begin(), sqlite.begin():
        pass
    put(sqlite, 1)


@pytest.mark.parametrize("damage", ["header", "page", "text", "cut"])
def test_a_damaged_file_is_corrupt_and_not_read_as_something_else(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "taut.db"
    records = open_sqlite(path)
    create_tables(records, metadata)
    for id_ in range(50):
        put(records, id_, body="x" * 3000)
    records.close()
    data = bytearray(path.read_bytes())
    match damage:
        case "header":
            data[0:16] = b"not a database.."
        case "page":
            for page in range(2, len(data) // 4096):
                data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
        case "text":
            data = bytearray(b"this is a letter to my aunt\n" * 100)
        case "cut":
            data = data[: len(data) // 3]
    path.write_bytes(data)

    def read() -> None:
        damaged = open_sqlite(path)
        try:
            with damaged.read() as tx:
                tx.execute(select(things)).all()
        finally:
            damaged.close()

    with pytest.raises(Corrupt, match=r"is damaged .* restore it from a backup"):
        read()


def test_a_file_that_was_removed_or_replaced_takes_no_more_writes(
    sqlite: SqliteRecords, tmp_path: Path
) -> None:
    put(sqlite, 1)
    path, away = tmp_path / "taut.db", tmp_path / "away.db"
    path.rename(away)
    with pytest.raises(Unavailable, match="removed or replaced"):
        put(sqlite, 2)
    path.write_bytes(b"")
    with pytest.raises(Unavailable, match="removed or replaced"):
        names(sqlite)
    path.unlink()
    away.rename(path)

    assert names(sqlite) == ["1"]


def test_a_path_that_cannot_be_a_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "taut.db"):
        with pytest.raises(Unavailable, match="cannot be opened"):
            open_sqlite(path)


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for round_ in range(3):
        path = tmp_path / f"{round_}.db"
        children = [_fork(lambda path=path: open_sqlite(path).close()) for _ in range(8)]

        assert [child.wait() for child in children] == [0] * 8


# Both


def test_a_store_that_was_closed_says_so(open_records: Open) -> None:
    records = open_records(metadata)
    put(records, 1)
    records.close()
    with pytest.raises(Unavailable, match="was closed by this process"):
        put(records, 2)

    assert names(open_records()) == ["1"]


def test_a_killed_process_leaves_no_lock_and_no_half_of_its_transaction(
    open_records: Open, tmp_path: Path
) -> None:
    records = open_records(metadata)
    child = _fork(lambda: _write_and_hang(records))
    line = os.read(child.out, 10)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    put(records, 2)

    assert line == b"written"
    assert names(records) == ["1", "2"]


def test_a_forked_child_has_connections_of_its_own(open_records: Open) -> None:
    records = open_records(metadata)
    put(records, 1)
    with records.begin() as tx:  # open in the parent while the child works
        tx.execute(select(things)).all()
        if records.dialect == "sqlite":
            child = _fork(lambda: names(records))
        else:
            child = _fork(lambda: put(records, 2))
        status = child.wait()
        tx.execute(insert(things).values(id=3, name="3"))

    assert status == 0
    assert "3" in names(records)
    assert ("2" in names(records)) == (records.dialect == "postgres")
    again = _fork(lambda: put(records, 4))
    assert again.wait() == 0
    assert "4" in names(records)


def test_processes_that_write_at_once_lose_no_update(open_records: Open) -> None:
    records = open_records(metadata)
    with records.begin() as tx:
        tx.execute(insert(things).values(id=1, big=0))

    def add() -> None:
        for _ in range(20):
            transact(records, lambda tx: tx.execute(text(_ADD)), attempts=500)

    children = [_fork(add) for _ in range(3)]

    assert [child.wait() for child in children] == [0, 0, 0]
    with records.read() as tx:
        assert tx.execute(select(things.c.big)).scalar_one() == 60


_ADD = (
    "UPDATE conformance_things SET big = (SELECT big FROM conformance_things WHERE id = 1) + 1 WHERE id = 1"
)


# PostgreSQL


def test_a_server_that_dies_and_comes_back_loses_nothing_acknowledged(
    postgres_server: PostgresServer, open_own: Callable[[], Records]
) -> None:
    records = open_own()
    put(records, 1)
    with pytest.raises(Unavailable, match="does not answer"), records.begin() as tx:  # noqa: PT012 - dies inside
        tx.execute(insert(things).values(id=2, name="2"))
        postgres_server.kill()
        tx.execute(insert(things).values(id=3, name="3"))
    with pytest.raises(Unavailable):
        put(records, 4)
    postgres_server.start()
    put(records, 5)

    assert names(records) == ["1", "5"]


def test_an_idle_pool_does_not_notice_that_the_server_was_restarted(
    postgres_server: PostgresServer, open_own: Callable[[], Records]
) -> None:
    records = open_own()
    put(records, 1)
    postgres_server.kill()
    postgres_server.start()
    put(records, 2)

    assert names(records) == ["1", "2"]


@pytest.fixture
def open_own(postgres_server: PostgresServer) -> Iterator[Callable[[], Records]]:
    """Opens a database of the server that the test may kill, also where the environment names another for the rest."""
    opened: list[Records] = []

    def open_() -> Records:
        with psycopg.connect(postgres_server.url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS mortal WITH (FORCE)")
            connection.execute("CREATE DATABASE mortal")
        url = make_url(postgres_server.url).set(database="mortal").render_as_string(hide_password=False)
        records = open_postgres(url, lock_timeout_s=0.3)
        create_tables(records, metadata)
        opened.append(records)
        return records

    yield open_
    for records in opened:
        records.close()


def test_a_row_that_another_transaction_holds_too_long_is_unavailable(
    open_own: Callable[[], Records],
) -> None:
    records = open_own()
    put(records, 1)
    with records.begin() as tx:
        tx.execute(text("UPDATE conformance_things SET big = 1"))
        errors: list[TautError] = []

        def update() -> None:
            try:
                with records.begin() as other:
                    other.execute(text("UPDATE conformance_things SET big = 2"))
            except TautError as error:
                errors.append(error)

        thread = threading.Thread(target=update)
        thread.start()
        thread.join(90)

    assert [type(error) for error in errors] == [Unavailable]


def test_the_slower_of_two_that_decide_on_the_same_rows_is_told_to_read_again(
    open_own: Callable[[], Records],
) -> None:
    records = open_own()
    for id_ in (1, 2):
        put(records, id_)

    def overlap() -> None:
        with records.begin() as first:
            first.execute(select(things)).all()
            with records.begin() as second:
                second.execute(select(things)).all()
                second.execute(text("UPDATE conformance_things SET big = 1 WHERE id = 1"))
            first.execute(text("UPDATE conformance_things SET big = 1 WHERE id = 2"))

    with pytest.raises(Conflict, match="another transaction won"):
        overlap()
    with records.read() as tx:
        assert tx.execute(select(things.c.big).order_by(things.c.id)).scalars().all() == [1, None]


def test_addresses_that_name_no_postgres_are_refused_and_passwords_stay_out_of_messages() -> None:
    for url in ("mysql://a:hush@127.0.0.1/x", "not a url"):
        with pytest.raises(InvalidInput, match="postgresql://"):
            open_postgres(url)
    with pytest.raises(Unavailable, match="does not answer") as refused:
        open_postgres("postgresql://ann:hush@127.0.0.1:1/x")

    assert "hush" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)


class _Child:
    def __init__(self, pid: int, out: int) -> None:
        self.pid, self.out = pid, out

    def wait(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.out)
        return status


_PIPE: list[int] = []


def _fork(do: Callable[[], object]) -> _Child:
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        _PIPE[:] = [into]
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    os.close(into)
    return _Child(pid, out)


def _write_and_hang(records: Records) -> None:
    put(records, 1)
    with records.begin() as tx:
        tx.execute(insert(things).values(id=99, name="half"))
        os.write(_PIPE[0], b"written")
        time.sleep(60)
