"""Online features on a real Redis server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from taut.adapters.online.redis import RedisOnlineReader, RedisOnlineWriter
from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.ports.online import OnlineRow
from taut.testing.brokers import RedisServer
from taut.testing.conformance.online import OnlineSuite, Pair

pytestmark = pytest.mark.xdist_group("redis-online")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path_factory.mktemp("redis"))
    found.start()
    yield found
    found.stop()


@contextmanager
def opened(
    server: RedisServer, *, timeout_s: float = 10.0
) -> Iterator[tuple[RedisOnlineReader, RedisOnlineWriter]]:
    with (
        closing(RedisOnlineReader(server.url, timeout_s=timeout_s)) as reader,
        closing(RedisOnlineWriter(server.url)) as writer,
    ):
        yield reader, writer


@pytest.fixture
def store(server: RedisServer) -> Iterator[tuple[RedisOnlineReader, RedisOnlineWriter]]:
    with opened(server) as pair:
        redis.Redis.from_url(server.url).flushdb()
        yield pair


class TestRedisOnline(OnlineSuite):
    @pytest.fixture(autouse=True)
    def _on(self, server: RedisServer) -> None:
        self.server = server
        self.folders: set[Path] = set()

    @contextmanager
    def open(self, folder: Path) -> Iterator[Pair]:
        with opened(self.server) as pair, ExitStack() as stack:
            if folder not in self.folders:
                self.folders.add(folder)
                stack.enter_context(redis.Redis.from_url(self.server.url)).flushdb()
            yield pair


def rows(count: int) -> Iterator[tuple[tuple[str], OnlineRow]]:
    return (((f"e{index}",), OnlineRow(index, (index, 0.5), "feat_1")) for index in range(count))


def test_a_walk_meets_every_row_and_the_newest_time_is_that_of_all(
    store: tuple[RedisOnlineReader, RedisOnlineWriter],
) -> None:
    reader, writer = store
    assert reader.newest_us("s") is None
    assert reader.walk("s", b"", 10).rows == ()
    assert writer.put("s", rows(2500)) == 2500

    met, end = list[OnlineRow](), b""
    while True:
        stretch = reader.walk("s", end, 100)
        met += stretch.rows
        end = stretch.end
        if not end:
            break

    assert {row.event_time_us for row in met} == set(range(2500))
    assert len(stretch.rows) < 2500, "a stretch is some of a set, not all of it"
    assert reader.newest_us("s") == 2499


def test_times_before_1970_and_far_ones_keep_their_order(
    store: tuple[RedisOnlineReader, RedisOnlineWriter],
) -> None:
    reader, writer = store
    times = [-(2**63), -(2**40), -1, 0, 2**32 - 1, 2**32, 2**53 + 1, 2**53 + 2, 2**63 - 1]
    for before, after in pairwise(times):
        writer.delete("s", [("a",)])
        assert writer.put("s", [(("a",), OnlineRow(before, (1,), "m"))]) == 1
        assert writer.put("s", [(("a",), OnlineRow(after, (2,), "m"))]) == 1
        assert writer.put("s", [(("a",), OnlineRow(before, (3,), "m"))]) == 0
        assert reader.get_now("s", ("a",)) == OnlineRow(after, (2,), "m")


@pytest.mark.parametrize("at", [0, 7, 8, 11, 12, -1])
def test_a_row_that_was_changed_in_the_store_is_corrupt(
    server: RedisServer, store: tuple[RedisOnlineReader, RedisOnlineWriter], at: int
) -> None:
    reader, writer = store
    writer.put("s", rows(1))
    with redis.Redis.from_url(server.url) as raw:
        ((key, stored),) = raw.hgetall("taut:online:s").items()
        flipped = bytearray(stored)
        flipped[at] ^= 1
        raw.hset("taut:online:s", key, bytes(flipped))

    with pytest.raises(Corrupt, match="materialise"):
        reader.get_now("s", ("e0",))
    with pytest.raises(Corrupt, match="materialise"):
        asyncio.run(reader.get("s", [("e0",)]))
    with pytest.raises(Corrupt, match="materialise"):
        reader.walk("s", b"", 10)


def test_a_row_of_another_entity_is_not_served(
    server: RedisServer, store: tuple[RedisOnlineReader, RedisOnlineWriter]
) -> None:
    reader, writer = store
    writer.put("s", rows(2))
    with redis.Redis.from_url(server.url) as raw:
        one, other = raw.hkeys("taut:online:s")
        raw.hset("taut:online:s", one, raw.hget("taut:online:s", other))

    with pytest.raises(Corrupt):
        [reader.get_now("s", (name,)) for name in ("e0", "e1")]


def test_a_server_that_hangs_is_unavailable_within_the_bound_and_well_again_after(
    server: RedisServer,
) -> None:
    with opened(server, timeout_s=0.2) as (reader, writer):
        writer.put("hang", rows(1))

        async def answers() -> None:
            while True:  # a busy machine may take longer than the bound too
                try:
                    assert (await reader.get("hang", [("e0",)]))[0] is not None
                except Unavailable:
                    continue
                return

        async def run() -> None:
            await answers()
            server.pause()
            try:
                with pytest.raises(Unavailable, match="does not answer"):
                    await reader.get("hang", [("e0",)])
                with pytest.raises(Unavailable, match="does not answer"):
                    reader.get_now("hang", ("e0",))
            finally:
                server.resume()
            await answers()

        asyncio.run(run())


def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_said() -> None:
    said = r"redis://127\.0\.0\.1:1/0 does not answer"
    with (
        closing(RedisOnlineReader("redis://me:geheim@127.0.0.1:1/0")) as reader,
        pytest.raises(Unavailable, match=said) as found,
    ):
        reader.get_now("s", ("a",))
    assert "geheim" not in str(found.value)


def test_what_else_lies_under_its_name_is_said_and_left_alone(
    server: RedisServer, store: tuple[RedisOnlineReader, RedisOnlineWriter]
) -> None:
    reader, writer = store
    with redis.Redis.from_url(server.url) as raw:
        raw.set("taut:online:s", "a string")
    with pytest.raises(Unavailable, match="something else"):
        reader.get_now("s", ("a",))
    with pytest.raises(Unavailable, match="something else"):
        writer.put("s", rows(1))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "redis://127.0.0.1:port/0"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="redis://HOST:PORT/DATABASE"):
        RedisOnlineReader(url)


def test_many_ask_at_once_on_one_loop(store: tuple[RedisOnlineReader, RedisOnlineWriter]) -> None:
    reader, writer = store
    writer.put("s", rows(100))

    async def run() -> list[list[OnlineRow | None]]:
        return await asyncio.gather(*(reader.get("s", [(f"e{index}",)]) for index in range(100)))

    found = asyncio.run(run())
    assert [one[0].event_time_us for one in found if one[0] is not None] == list(range(100))
