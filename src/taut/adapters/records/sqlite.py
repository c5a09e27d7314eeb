"""Records on one SQLite file: write-ahead log, full synchronisation, one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, QueuePool, create_engine, exc

from taut.adapters.records.sql import Engines, SqlRecords
from taut.core.errors import Conflict, Corrupt, InvalidInput, Unavailable
from taut.ports.records import Tx

_READERS: Final = 16
_ROOM_BYTES: Final = 64 * 1024  # one step by which the log's index grows is half of it
_PRAGMAS: Final = (
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA temp_store=MEMORY",
)


def open_sqlite(path: Path, *, lock_timeout_s: float = 10.0) -> SqliteRecords:
    """Open the store in the file `path`, made when it is absent, readable by its owner only.

    lock_timeout_s: how long a writer waits for others before Unavailable.
    Raises Unavailable when the file cannot be opened or written, Corrupt when it is no database.
    """
    records = SqliteRecords(path, lock_timeout_s=lock_timeout_s)
    with records.read():  # opens the file now, so that what is wrong with it is said here
        pass
    return records


class SqliteRecords(SqlRecords):
    """One file in WAL mode. Writers queue: in this process by a lock, between processes by SQLite's own.

    Without the lock, SQLite's back-off (sleeps of up to 100 ms) would starve some of many threads.
    """

    def __init__(self, path: Path, *, lock_timeout_s: float) -> None:
        super().__init__()
        self._path = path.absolute()
        self._lock_timeout_s = lock_timeout_s
        self._writing = threading.Lock()
        self._writer_thread: int | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the file that the pools have open

    @property
    def dialect(self) -> str:
        return "sqlite"

    @property
    def where(self) -> str:
        return f"database {self._path}"

    def _connect(self) -> Engines:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._file = _identity(self._path)
        except OSError as error:
            raise Unavailable(
                f"{self.where} cannot be opened: {error.strerror}: mend the path or its rights"
            ) from error
        writer = create_engine(
            "sqlite+pysqlite://", creator=self._open_writer, poolclass=QueuePool, pool_size=1, max_overflow=1,
            hide_parameters=True,
        )  # fmt: skip
        reader = create_engine(
            "sqlite+pysqlite://", creator=self._open_reader, poolclass=QueuePool, pool_size=_READERS, max_overflow=0,
            pool_timeout=self._lock_timeout_s, hide_parameters=True,
        )  # fmt: skip
        return Engines(writer=writer, reader=reader)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._lock_timeout_s,
            isolation_level=None,  # the driver must not begin transactions of its own
            check_same_thread=False,  # the pool gives a connection to one thread at a time
        )
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise sqlite3.OperationalError(f"the file system gives journal mode {mode}, not WAL")
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        return self._open()

    def _open_reader(self) -> sqlite3.Connection:
        connection = self._open()
        connection.execute("PRAGMA query_only=ON")
        return connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        me = threading.get_ident()
        # A second transaction inside the first would wait for itself.
        assert self._writer_thread != me, (
            "this thread already writes: pass its tx on instead of a second begin()"
        )
        self.engines()  # after a fork this makes the lock anew
        turn = self._writing
        if not turn.acquire(timeout=self._lock_timeout_s):
            raise Unavailable(
                f"{self.where}: another thread has been writing for {self._lock_timeout_s:g} s: retry"
            )
        self._writer_thread = me
        try:
            yield
        finally:
            self._writer_thread = None
            turn.release()

    @contextmanager
    def migrating(self) -> Iterator[Tx]:
        """As `begin`, with foreign keys checked at the end instead of at once.

        SQLite changes a table by copying it and dropping the old one, and with foreign keys on, a dropped table
        deletes the rows that refer to it. The switch has no effect inside a transaction, so it comes before.
        """
        with self._named_errors(), self._turn(), self.engines().writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.rollback()  # ends what SQLAlchemy takes for a transaction; the driver began none
            try:
                with connection.begin():
                    self._start_write(connection)
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if broken is not None:
                        raise Conflict(
                            f"{self.where}: the migration would leave {broken[0]} with rows that refer to nothing"
                        )
            finally:
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")

    def _after_fork(self) -> None:
        self._writing = threading.Lock()
        self._writer_thread = None

    def _still_there(self) -> None:
        """A file that was removed or replaced takes writes without complaint, and they are gone with it."""
        if _identity(self._path) != self._file:
            raise Unavailable(
                f"{self.where} was removed or replaced while it was open: put it back and restart"
            )

    def _start_write(self, connection: Connection) -> None:
        self._still_there()
        # The write lock first: a transaction that reads and then asks for it could read what is no longer true.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _start_read(self, connection: Connection) -> None:
        self._still_there()
        connection.exec_driver_sql("BEGIN")

    def _translate(self, error: exc.DBAPIError) -> Exception:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR and _no_room(self._path.parent):
            code = sqlite3.SQLITE_FULL  # SQLite says so of its database, not of the log and index beside it
        return _named(code, error, where=self.where)


def _no_room(folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _ROOM_BYTES


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


_CONSTRAINTS: Final = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}


def _named(code: int | None, error: exc.DBAPIError, *, where: str) -> Exception:
    said = str(error.orig)
    if code is None:
        return Unavailable(f"{where}: {said}") if isinstance(error.orig, sqlite3.OperationalError) else error
    if code in _CONSTRAINTS:
        return Conflict(f"{where}: {said}: somebody else wrote it first, or it refers to what is not there")
    if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return Conflict(f"{where}: the state that was read is no longer true: read again")
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(f"{where}: another process has been writing too long: retry")
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"{where}: the disk is full, nothing was written: free some space and retry")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return Unavailable(f"{where}: cannot be read or written ({said}): look at its disk and rights")
        case sqlite3.SQLITE_READONLY if "attempt to write" in said and error.statement:
            return InvalidInput(
                f"{where}: a write in a read-only transaction, or in a file without write rights"
            )
        case sqlite3.SQLITE_READONLY:
            return Unavailable(f"{where}: is not writable ({said}): look at its rights")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Corrupt(f"{where}: is damaged ({said}): restore it from a backup")
    return error
