"""Records in memory for tests, and tables without migrations."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy import MetaData, StaticPool, create_engine, event, exc

from taut.core.errors import Conflict, InvalidInput, Unavailable
from taut.ports.records import Records, Tx

_CONSTRAINTS = ("UNIQUE constraint failed", "FOREIGN KEY constraint failed")


class MemoryRecords:
    """Records on one SQLite connection in memory: no file, no synchronisation, gone when it is closed.

    Transactions of all threads, readers too, take turns. A second transaction of one thread inside the first is
    refused: on a real store it would not see the first one's writes, or wait for itself.
    """

    def __init__(self, *, turn_timeout_s: float = 10.0) -> None:
        self._engine = create_engine(
            "sqlite+pysqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        self._turn = threading.Lock()
        self._turn_timeout_s = turn_timeout_s
        self._owner: int | None = None

        @event.listens_for(self._engine, "connect")
        def _prepare(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys=ON")

    @property
    def dialect(self) -> str:
        return "sqlite"

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        with self._transaction(query_only=False) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with self._transaction(query_only=True) as tx:
            yield tx

    def check(self) -> None:
        with self.read():
            pass

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, query_only: bool) -> Iterator[Tx]:
        me = threading.get_ident()
        assert self._owner != me, "this thread already has a transaction open: pass its tx on"
        if not self._turn.acquire(timeout=self._turn_timeout_s):
            raise Unavailable(
                "another transaction of this test holds the store: does a thread wait inside one?"
            )
        self._owner = me
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA query_only={'ON' if query_only else 'OFF'}")
                connection.exec_driver_sql("BEGIN IMMEDIATE" if not query_only else "BEGIN")
                yield connection
                connection.commit()
        except exc.IntegrityError as error:
            if str(error.orig).startswith(_CONSTRAINTS):
                raise Conflict(str(error.orig)) from error
            raise
        except exc.OperationalError as error:
            if "readonly" in str(error.orig):
                raise InvalidInput("a write in a read-only transaction") from error
            raise
        finally:
            self._owner = None
            self._turn.release()


def memory_records(*metadatas: MetaData) -> MemoryRecords:
    """Return Records in memory with the tables of `metadatas`."""
    records = MemoryRecords()
    with records.begin() as tx:
        for statement in _schema(metadatas):
            tx.exec_driver_sql(statement)
    return records


@lru_cache(maxsize=64)
def _schema(metadatas: tuple[MetaData, ...]) -> tuple[str, ...]:
    """Return the statements that make the tables; to compile them takes three times as long as to run them."""
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            for metadata in metadatas:
                metadata.create_all(connection)
            made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
            return tuple(connection.exec_driver_sql(made).scalars())
    finally:
        engine.dispose()


def create_tables(records: Records, *metadatas: MetaData) -> None:
    """Make the tables of `metadatas` where they are absent, without migrations. For tests."""
    with records.begin() as tx:
        for metadata in metadatas:
            metadata.create_all(tx)
