"""Records: tables with transactions, where everything that must be true together is committed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Table

from taut.core.errors import Conflict

T = TypeVar("T")

Tx = Connection
"""An open transaction. Its language is SQLAlchemy Core on portable types; stages own their Table definitions
(`tables.py` of a room, each with a MetaData of its own) and never write dialect-specific SQL."""


class Records(Protocol):
    """A relational store.

    Guarantees: `begin` yields a serialisable transaction: what was read in it is still true at commit, or the
    commit fails with Conflict and nothing was written. A transaction that returned is on stable storage (survives
    power loss). An exception inside rolls everything back. Any number of threads and processes may call.

    Not guaranteed: fairness between writers; that a transaction that raised Unavailable did not commit (the answer
    may have been lost: make effects idempotent by a key).

    Errors: Conflict when another transaction won (safe to run again from the start: `transact` does); Unavailable when the database does not answer or cannot write (disk full, lock
    time-out, connection lost); Corrupt when the store is damaged.
    """

    @property
    def dialect(self) -> str:
        """Name of the SQL dialect, for messages and benchmarks only."""
        ...

    def begin(self) -> AbstractContextManager[Tx]:
        """Open a read-write transaction, committed when the block ends without an exception."""
        ...

    def read(self) -> AbstractContextManager[Tx]:
        """Open a read-only transaction on one consistent state; a write in it fails."""
        ...

    def check(self) -> None:
        """Prove that the store answers and that its schema is the one this code needs; raise otherwise."""
        ...

    def close(self) -> None: ...


def transact(records: Records, do: Callable[[Tx], T], *, attempts: int = 8) -> T:
    """Run `do` in a transaction, again from the start when another one won, at most `attempts` times.

    `do` must have no effect but in its transaction. Raises Conflict when every attempt lost.
    """
    for _ in range(attempts - 1):
        try:
            with records.begin() as tx:
                return do(tx)
        except Conflict:
            continue
    with records.begin() as tx:
        return do(tx)


Value = str | int | float | bool | bytes | None
"""What every driver takes as it is."""

MANY: Final = "taut_many"
"""The execution option by which an adapter knows the rows of `insert_many`, if its database has a faster way."""


def insert_many(
    tx: Tx,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Value, ...]],
) -> None:
    """Insert rows, each in the order of `columns`, by the fastest way the database has: for thousands of rows.

    The values go to the driver as they are: no column's Python-side default or type conversion is applied. Errors
    are those of any statement. SQLAlchemy's own insert of many rows costs three times the processor time here.
    """
    if rows:
        tx.exec_driver_sql(_insert(tx, table, columns), list(rows), execution_options={MANY: True})


LATE: Final = "taut_late"
"""The execution option with the list of statements that an adapter sends together with the commit."""


def insert_late(
    tx: Tx,
    table: Table,
    columns: Sequence[str],
    row: tuple[Value, ...],
) -> None:
    """Insert a row that this transaction does not read again: it may be written as late as the commit.

    Saves a way to the database where it has one: with many writers a way costs as much as an effect's own statement.
    A Conflict or any other error of the row is then the commit's. Inside a savepoint the row is written at once, so
    that it goes with the savepoint.
    """
    late: list[tuple[str, object]] | None = tx.get_execution_options().get(LATE)
    statement = _insert(tx, table, columns)
    if late is None or tx.in_nested_transaction():
        tx.exec_driver_sql(statement, row)
    else:
        late.append((statement, row))


def _insert(tx: Tx, table: Table, columns: Sequence[str]) -> str:
    return _statement(tx.dialect, table, tuple(columns))


@lru_cache(maxsize=256)
def _statement(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> str:
    quote = dialect.identifier_preparer
    names = ", ".join(quote.format_column(table.c[name]) for name in columns)
    values = ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * len(columns))
    return f"INSERT INTO {quote.format_table(table)} ({names}) VALUES ({values})"  # noqa: S608 - quoted names of our own tables
