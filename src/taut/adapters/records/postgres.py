"""Records on PostgreSQL: serialisable transactions, read-only ones on one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import create_engine, exc
from sqlalchemy.engine import URL, make_url

from taut.adapters.records.copying import commit_with, copy_many, quiet_pipelines
from taut.adapters.records.sql import Engines, SqlRecords
from taut.core.errors import Conflict, Corrupt, InvalidInput, Unavailable
from taut.ports.records import LATE, Tx

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
# SQLSTATE codes by what the caller can do about them; two characters name a whole class.
_CONFLICT: Final = {"40001", "40P01", "23505", "23503", "23P01"}
_CORRUPT: Final = {"XX001", "XX002"}
_UNAVAILABLE: Final = {"08", "28", "3D", "53", "57", "58", "55P03", "25P03", "25P04"}
_MIGRATION_LOCK: Final = 0x7461_7574  # "taut"


def open_postgres(url: str, *, pool_size: int = 8, lock_timeout_s: float = 10.0) -> PostgresRecords:
    """Open the database that `url` names: postgresql://user@host:port/name, sockets by `?host=/folder`.

    pool_size: idle connections kept; twice as many may be open, one a running transaction.
    lock_timeout_s: how long a statement waits for a row that another transaction holds before Unavailable.
    Raises InvalidInput on another kind of address, Unavailable when nothing answers there.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise InvalidInput("the database address is malformed: write postgresql://user@host/name") from None
    if parsed.drivername not in _SCHEMES:
        raise InvalidInput(
            f"{parsed.drivername}:// is no PostgreSQL address: write postgresql://user@host/name"
        )
    records = PostgresRecords(parsed, pool_size=pool_size, lock_timeout_s=lock_timeout_s)
    with records.read() as tx:
        tx.exec_driver_sql("SELECT 1")
    return records


class PostgresRecords(SqlRecords):
    """SERIALIZABLE for every write: what was read is still true at commit, or Conflict.

    Explicit locks on top of a weaker level were refused: each room would have to know which rows a decision rests
    on, and a forgotten one is a wrong decision that no test sees. Reads run on one snapshot (REPEATABLE READ, READ
    ONLY), which costs no predicate locks.
    """

    def __init__(self, url: URL, *, pool_size: int, lock_timeout_s: float) -> None:
        super().__init__()
        self._url = url.set(drivername="postgresql+psycopg")
        self._pool_size = pool_size
        self._lock_timeout_s = lock_timeout_s

    @property
    def dialect(self) -> str:
        return "postgres"

    @property
    def where(self) -> str:
        host = self._url.host or self._url.query.get("host") or "the local socket"
        return f"database {self._url.database} at {host}"

    def _connect(self) -> Engines:
        lock_ms = max(1, int(self._lock_timeout_s * 1000))
        engine = create_engine(
            self._url,
            isolation_level="SERIALIZABLE",
            pool_size=self._pool_size,
            max_overflow=self._pool_size,
            pool_timeout=self._lock_timeout_s,
            pool_pre_ping=True,  # a server that was restarted meanwhile costs nobody a failed transaction
            hide_parameters=True,  # values may be personal; errors are logged
            connect_args={
                "connect_timeout": 5,
                "keepalives_idle": 30,
                "tcp_user_timeout": 30_000,
                "application_name": "taut",
                # A process that is stopped inside a transaction must not hold its rows for ever.
                "options": f"-c lock_timeout={lock_ms} -c idle_in_transaction_session_timeout=60000"
                " -c synchronous_commit=on -c timezone=UTC",
            },
        )
        copy_many(engine)
        quiet_pipelines()
        reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return Engines(writer=engine, reader=reader)

    @contextmanager
    def migrating(self) -> Iterator[Tx]:
        """READ COMMITTED under an advisory lock: a serialisable snapshot would be older than the lock that it waits for."""
        engine = self.engines().writer.execution_options(isolation_level="READ COMMITTED")
        with self._named_errors(), engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("SET LOCAL lock_timeout = '5min'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            yield connection

    def _start_write(self, connection: Tx) -> None:
        connection.execution_options(**{LATE: []})

    def _end_write(self, connection: Tx) -> None:
        """Send what was to be written late and the commit together: one way to the server instead of two."""
        late = connection.get_execution_options()[LATE]
        if late:
            commit_with(connection, late)

    def _translate(self, error: exc.DBAPIError) -> Exception:
        state = getattr(error.orig, "sqlstate", None) or ""
        said = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
        if error.connection_invalidated or (not state and isinstance(error, exc.OperationalError)):
            return Unavailable(f"{self.where}: does not answer ({said}): retry, and look whether it runs")
        if state in _CONFLICT:
            return Conflict(f"{self.where}: another transaction won ({said}): read again")
        if state == "25006":
            return InvalidInput(f"{self.where}: a write in a read-only transaction")
        if state in _CORRUPT:
            return Corrupt(f"{self.where}: is damaged ({said}): restore it from a backup")
        if state in _UNAVAILABLE or state[:2] in _UNAVAILABLE:
            return Unavailable(f"{self.where}: cannot do this now ({state}: {said}): retry")
        return error
