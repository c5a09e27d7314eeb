"""Online features on a Redis server: control writes, gateways of every machine read.

A feature set is one hash, `taut:online:SET`, with a field an entity: many rows are one command and one exchange, and the
set can be counted and looked over. A field is `event time | crc32 | msgpack of OnlineRow`; the time comes first, as 8 bytes
in their order, so that the script which writes can tell the newer row without knowing more of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from taut.adapters.online.packing import Key, changed, pack_key, pack_row, unpack_row
from taut.adapters.redis_server import BUSY, open_redis
from taut.core.errors import TautError, Unavailable
from taut.ports.online import OnlineRow, Stretch

_PREFIX: Final = "taut:online:"
_BATCH: Final = 500  # rows of one script, which nobody else is served beside
_SCAN: Final = 1000
_TIME: Final = 8
_MOVING: Final = ("CLUSTERDOWN", "TRYAGAIN")  # of a cluster, which the bus cannot run on
_SHIFT: Final = 2**63  # so that the order of the bytes is the order of times, those before 1970 too
_WRITE_TIMEOUT_S: Final = 10.0
_THREADS: Final = 8
_PUT: Final = """
local written = 0
for i = 1, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  local newer = not before
  if before then
    local h0, l0 = struct.unpack('>I4I4', before)
    local h1, l1 = struct.unpack('>I4I4', ARGV[i + 1])
    newer = h1 > h0 or (h1 == h0 and (l1 > l0 or (l1 == l0 and before ~= ARGV[i + 1])))
  end
  if newer then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    written = written + 1
  end
end
return written
"""


class RedisOnlineReader:
    """Reads rows over the network; one event loop, and any number of threads.

    url: `redis://` or `rediss://` with the database's number. timeout_s: after which a reading raises Unavailable.
    Nothing is opened before the first reading, and nothing is tried again: whoever asks knows what a request can wait.
    A loop waits for threads of the reader's own, each with a connection that is kept: cheaper than redis-py's asyncio client.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.5) -> None:
        self._where: Final = _where(url)
        self._client: Final = open_redis(url, "the online store", timeout_s=timeout_s)
        self._timeout_s: Final = timeout_s
        self._threads: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="online")

    @property
    def local(self) -> bool:
        return False

    async def get(self, feature_set: str, keys: Sequence[Key]) -> list[OnlineRow | None]:
        packed = [pack_key(key) for key in keys]
        if not packed:
            return []
        ask = partial(self._client.hmget, _PREFIX + feature_set, packed)
        try:
            async with asyncio.timeout(self._timeout_s):  # a wait for a thread included
                found = await asyncio.get_running_loop().run_in_executor(
                    self._threads, _asked, ask, self._where
                )
        except TimeoutError as error:
            raise _translate(error, self._where) from error
        return [
            None if one is None else _read(feature_set, key, one)
            for key, one in zip(packed, found, strict=True)
        ]

    def get_now(self, feature_set: str, key: Key) -> OnlineRow | None:
        packed = pack_key(key)
        found = _asked(partial(self._client.hget, _PREFIX + feature_set, packed), self._where)
        return None if found is None else _read(feature_set, packed, found)

    def walk(self, feature_set: str, after: bytes, limit: int) -> Stretch:
        cursor, rows = int(after or b"0"), list[OnlineRow]()
        while True:
            scan = partial(self._client.hscan, _PREFIX + feature_set, cursor=cursor, count=limit)
            cursor, found = _asked(scan, self._where)
            rows += [_read(feature_set, key, one) for key, one in found.items()]
            if rows or not cursor:
                return Stretch(tuple(rows), str(cursor).encode() if cursor else b"")

    def newest_us(self, feature_set: str) -> int | None:
        newest: int | None = None
        end = b""
        while True:
            stretch = self.walk(feature_set, end, _SCAN)
            times = [row.event_time_us for row in stretch.rows]
            newest = max(times if newest is None else [newest, *times], default=None)
            end = stretch.end
            if not end:
                return newest

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


class RedisOnlineWriter:
    """Writes rows in batches, each by one script. Durable as the server is: `appendonly yes` and `appendfsync always`."""

    def __init__(self, url: str, *, timeout_s: float = _WRITE_TIMEOUT_S) -> None:
        self._where: Final = _where(url)
        self._client: Final = open_redis(url, "the online store", timeout_s=timeout_s)
        self._put: Final = self._client.register_script(_PUT)

    def put(self, feature_set: str, rows: Iterable[tuple[Key, OnlineRow]]) -> int:
        written, remaining = 0, iter(rows)
        while batch := [pack_row(feature_set, key, row) for key, row in islice(remaining, _BATCH)]:
            words: list[bytes] = []
            for packed, event_time_us, stored in batch:
                words += [packed, (event_time_us + _SHIFT).to_bytes(_TIME, "big") + stored]
            written += int(_asked(partial(self._put, keys=[_PREFIX + feature_set], args=words), self._where))
        return written

    def delete(self, feature_set: str, keys: Iterable[Key]) -> int:
        deleted, remaining = 0, iter(keys)
        while batch := [pack_key(key) for key in islice(remaining, _BATCH)]:
            deleted += int(_asked(partial(self._client.hdel, _PREFIX + feature_set, *batch), self._where))
        return deleted

    def count(self, feature_set: str) -> int:
        return int(_asked(partial(self._client.hlen, _PREFIX + feature_set), self._where))

    def close(self) -> None:
        self._client.close()


def _read(feature_set: str, packed: bytes, stored: bytes) -> OnlineRow:
    row = unpack_row(feature_set, packed, stored[_TIME:])
    if stored[:_TIME] != (row.event_time_us + _SHIFT).to_bytes(_TIME, "big"):
        raise changed(feature_set)
    return row


def _where(url: str) -> str:
    """Return a server's address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _asked(ask: Callable[[], Any], where: str) -> Any:
    try:
        return ask()
    except (redis.exceptions.RedisError, OSError) as error:
        raise _translate(error, where) from error


def _translate(error: Exception, where: str) -> TautError:
    """Name an error by what can be done about it."""
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return Unavailable(
            f"the online store {where} does not let us in: check user and password in TAUT_ONLINE"
        )
    if isinstance(error, redis.exceptions.ResponseError):
        said = str(error)
        if not said.startswith((*BUSY, *_MOVING)):
            return Unavailable(
                f"the online store {where} refuses ({said[:200]}): it may hold something else there"
            )
        return Unavailable(f"the online store {where} does not take it now ({said[:200]})")
    said = str(error) or type(error).__name__
    return Unavailable(
        f"the online store {where} does not answer ({said[:200]}): start it, or check TAUT_ONLINE"
    )
