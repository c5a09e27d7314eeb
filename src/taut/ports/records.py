"""Records: tables with transactions, where everything that must be true together is committed together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from sqlalchemy import Connection

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
