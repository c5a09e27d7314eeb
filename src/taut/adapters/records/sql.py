"""What SQLite and PostgreSQL share: pools that survive threads and forks, and errors named by their remedy."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection, Engine, exc

from taut.core.errors import Unavailable
from taut.ports.records import Tx


class Engines:
    """The two engines of a store: one for transactions that write, one for those that only read."""

    def __init__(self, *, writer: Engine, reader: Engine) -> None:
        self.writer = writer
        self.reader = reader
        self.pid = os.getpid()

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


class SqlRecords(ABC):
    """Records over SQLAlchemy; a subclass says how its database connects, begins, fails and knows its schema.

    After a fork the child makes pools of its own and never touches, nor closes, what it inherited: closing a
    shared PostgreSQL socket would end the parent's session, and closing a shared SQLite handle may drop its locks.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._engines: Engines | None = None
        self._inherited: list[Engines] = []
        self._closed = False

    @property
    @abstractmethod
    def dialect(self) -> str: ...

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the store is, for messages; never a password."""

    @abstractmethod
    def _connect(self) -> Engines: ...

    @abstractmethod
    def _translate(self, error: exc.DBAPIError) -> Exception:
        """Return the error of `taut.core.errors` that `error` means, or `error` itself where it is our mistake."""

    def _turn(self) -> AbstractContextManager[object]:
        """Wait for this thread's turn to write, where the database knows only one writer."""
        return nullcontext()

    def _start_write(self, connection: Connection) -> None:  # noqa: B027 - doing nothing is right for a database without such need
        """Say what a writing transaction must say first."""

    def _end_write(self, connection: Connection) -> None:  # noqa: B027 - doing nothing is right for a database without such need
        """Do what is left to do just before the commit."""

    def _start_read(self, connection: Connection) -> None:  # noqa: B027 - doing nothing is right for a database without such need
        """Say what a reading transaction must say first."""

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        with (
            self._named_errors(),
            self._turn(),
            self.engines().writer.connect() as connection,
            connection.begin(),
        ):
            self._start_write(connection)
            yield connection
            self._end_write(connection)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with self._named_errors(), self.engines().reader.connect() as connection, connection.begin() as state:
            self._start_read(connection)
            yield connection
            state.rollback()

    @contextmanager
    def migrating(self) -> Iterator[Tx]:
        """Open the one transaction in which the schema may change; others that migrate wait for it."""
        with self.begin() as tx:
            yield tx

    def check(self) -> None:
        from taut.adapters.records.chain import check_version

        with self.read() as tx:
            check_version(tx, dialect=self.dialect, where=self.where)

    def close(self) -> None:
        with self._guard:
            self._closed = True
            engines, self._engines = self._engines, None
        if engines is not None and engines.pid == os.getpid():
            engines.dispose()

    def engines(self) -> Engines:
        """Return this process's engines. For migrations and tests; everybody else uses `begin` and `read`."""
        engines = self._engines
        if engines is not None and engines.pid == os.getpid():
            return engines
        if engines is not None:  # a fork: another thread may have held the lock when it happened
            self._guard = threading.Lock()
            self._after_fork()
        with self._guard:
            if self._closed:
                raise Unavailable(f"{self.where} was closed by this process: open it again")
            if self._engines is None or self._engines.pid != os.getpid():
                if self._engines is not None:
                    self._inherited.append(self._engines)
                self._engines = self._connect()
            return self._engines

    def _after_fork(self) -> None:  # noqa: B027 - doing nothing is right for a database without such need
        """Make anew what a fork may have left locked."""

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            named = self._translate(error)
            if named is error:
                raise
            raise named from error
        except exc.TimeoutError as error:
            raise Unavailable(
                f"{self.where}: every connection of this process has been busy too long: retry, or do less at once"
            ) from error
