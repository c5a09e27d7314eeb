"""Online features in one SQLite file of their own: control writes it, gateways map it read-only.

A row is `crc32 | msgpack of OnlineRow`, the sum taken over feature set, key and content, so that neither a flipped
byte nor a row under another entity's key is served. The table is a B-tree on (feature set, key) without row ids:
one descent a look-up, and readers on the write-ahead log never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from taut.core.errors import Corrupt, InvalidInput, TautError, Unavailable
from taut.core.evidence import Scalar
from taut.ports.online import OnlineRow

Key = tuple[Scalar, ...]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS online_rows (
    feature_set TEXT NOT NULL, key BLOB NOT NULL, event_time_us INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (feature_set, key)
) WITHOUT ROWID, STRICT
"""
_VERSION: Final = 1
_GET: Final = "SELECT row FROM online_rows WHERE feature_set = ? AND key = ?"
_PUT: Final = """
INSERT INTO online_rows VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
SET event_time_us = excluded.event_time_us, row = excluded.row
WHERE excluded.event_time_us > event_time_us OR (excluded.event_time_us = event_time_us AND excluded.row <> row)
"""
_BATCH: Final = 4096
_MMAP_BYTES: Final = 2**30
_CHECKPOINT_PAGES: Final = 4000
_MAX_KEY_BYTES: Final = 2048
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(OnlineRow).decode


class SqliteOnlineReader:
    """Reads rows in microseconds; a connection a thread, none of which can write.

    path: of the file that an `open_online_writer` made. busy_timeout_s: longest wait for SQLite's own short locks.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 0.05) -> None:
        self._uri: Final = f"{path.absolute().as_uri()}?mode=ro"
        self._path: Final = path
        self._timeout_s: Final = busy_timeout_s
        self._local: Final = threading.local()
        self._lock: Final = threading.Lock()
        self._open: Final[list[sqlite3.Connection]] = []
        self._closed = False

    async def get(self, feature_set: str, key: Key) -> OnlineRow | None:
        return self.get_now(feature_set, key)

    def get_now(self, feature_set: str, key: Key) -> OnlineRow | None:
        packed = _pack_key(key)
        try:
            try:
                cursor = self._local.cursor
            except AttributeError:
                cursor = self._cursor()
            found = cursor.execute(_GET, (feature_set, packed)).fetchone()
        except sqlite3.Error as error:
            raise _translate(error, self._path) from error
        return None if found is None else _unpack(feature_set, packed, found[0])

    def close(self) -> None:
        """Close the connections of all threads. Reading afterwards raises Unavailable."""
        with self._lock:
            self._closed = True
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _cursor(self) -> sqlite3.Cursor:
        with self._lock:
            if self._closed:
                raise Unavailable(f"the online store {self._path} is closed: open it again")
            connection = sqlite3.connect(
                self._uri, uri=True, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
            )
            self._open.append(connection)
        connection.execute(f"PRAGMA mmap_size={_MMAP_BYTES}")
        connection.execute("PRAGMA query_only=ON")
        _check_version(connection, self._path)
        self._local.cursor = connection.cursor()
        cursor: sqlite3.Cursor = self._local.cursor
        return cursor


class SqliteOnlineWriter:
    """Writes rows in batches, each one transaction that is synchronised before it returns."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path: Final = path
        self._connection: Final = connection
        self._lock: Final = threading.Lock()

    def put(self, feature_set: str, rows: Iterable[tuple[Key, OnlineRow]]) -> int:
        changed = 0
        remaining = iter(rows)
        while batch := [_record(feature_set, key, row) for key, row in islice(remaining, _BATCH)]:
            with self._transaction() as connection:
                before = connection.total_changes
                connection.executemany(_PUT, batch)
                changed += connection.total_changes - before
        return changed

    def delete(self, feature_set: str, keys: Iterable[Key]) -> int:
        deleted = 0
        remaining = iter(keys)
        while batch := [(feature_set, _pack_key(key)) for key in islice(remaining, _BATCH)]:
            with self._transaction() as connection:
                before = connection.total_changes
                connection.executemany("DELETE FROM online_rows WHERE feature_set = ? AND key = ?", batch)
                deleted += connection.total_changes - before
        return deleted

    def count(self, feature_set: str) -> int:
        query = "SELECT count(*) FROM online_rows WHERE feature_set = ?"
        try:
            with self._lock:
                return int(self._connection.execute(query, (feature_set,)).fetchone()[0])
        except sqlite3.Error as error:
            raise _translate(error, self._path) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise _translate(error, self._path) from error


@contextmanager
def open_online_writer(path: Path, *, busy_timeout_s: float = 10.0) -> Iterator[SqliteOnlineWriter]:
    """Yield a writer on the file `path`, made (readable by its owner only) when it is absent.

    Raises Unavailable when the file cannot be opened or written, Corrupt when it is no store of online features.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise _translate(error, path) from error
    try:
        _prepare(connection, path)
        yield SqliteOnlineWriter(path, connection)
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # a short log keeps reads fast: each looks the page up in the log's index first
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")
        _check_version(connection, path)
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise Corrupt(
            f"{path} has layout {version}, not {_VERSION}: move it away and materialise the feature sets again"
        )


def _pack_key(key: Key) -> bytes:
    try:
        packed = _ENCODE(key)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(f"key {str(key)[:80]} cannot be stored: {error}") from error
    if not key or None in key or len(packed) > _MAX_KEY_BYTES:
        raise InvalidInput(
            f"key {str(key)[:80]} is empty, holds a null or is longer than {_MAX_KEY_BYTES} bytes: send every part"
        )
    return packed


def _record(feature_set: str, key: Key, row: OnlineRow) -> tuple[str, bytes, int, bytes]:
    packed = _pack_key(key)
    try:
        content = _ENCODE(row)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(f"the row of {str(key)[:80]} cannot be stored: {error}") from error
    return feature_set, packed, row.event_time_us, _sum(feature_set, packed, content) + content


def _sum(feature_set: str, packed: bytes, content: bytes) -> bytes:
    return crc32(content, crc32(packed, crc32(feature_set.encode()))).to_bytes(4, "big")


def _unpack(feature_set: str, packed: bytes, stored: bytes) -> OnlineRow:
    content = stored[4:]
    if stored[:4] == _sum(feature_set, packed, content):
        try:
            return _DECODE(content)
        except msgspec.MsgspecError:
            pass  # the sum is right, so a writer of another version wrote it: said below
    raise Corrupt(
        f"the online row of {feature_set!r} is not what was written: materialise the feature set again"
    )


def _translate(error: OSError | sqlite3.Error, path: Path) -> TautError:
    """Name an error of the store by its remedy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"the online store {path} is damaged: move it away and materialise the feature sets again"
        )
    return Unavailable(f"the online store {path} does not answer ({error}): check the disk and try again")
