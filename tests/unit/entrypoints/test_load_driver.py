"""The open loop against servers that answer, stall, break and are not there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import uvloop

from taut.core.errors import InvalidInput
from taut.entrypoints.load import Address, Driver, Measured, report
from taut.entrypoints.load.pacer import Pacer

T = TypeVar("T")
Handle = Callable[[int], Awaitable[bytes | None]]
"""Number of a request -> the bytes of its answer; None closes the connection without one."""

REQUEST = b"POST /v1/predict/late HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
SLOW_DOWN = b'{"error":{"message":"slow down"}}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def server(handle: Handle) -> AsyncIterator[Address]:
    """A server that reads requests of exactly REQUEST and answers as it is told."""
    count = 0
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                await reader.readexactly(len(REQUEST))
                count += 1
                answer = await handle(count)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            serving.discard(task)
            writer.transport.abort()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = made.sockets[0].getsockname()[:2]
    try:
        yield Address(host, port)
    finally:
        made.close()
        for task in [*serving]:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0.01)  # what was aborted is closed by the loop


def on_the_loop(work: Coroutine[None, None, T]) -> T:
    """Run on the loop that the command uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def drive(
    handle: Handle, *, rate: float, count: int, connections: int = 64, timeout_s: float = 30.0
) -> Measured:
    """Send `count` requests at an even rate."""

    async def run() -> Measured:
        async with server(handle) as address:
            arrivals = ((n / rate, REQUEST) for n in range(count))
            driver = Driver(
                address, arrivals, connections_max=connections, timeout_s=timeout_s, expected_s=count / rate
            )
            return await driver.run(lambda _message, _fraction: None)

    return on_the_loop(run())


async def at_once(_number: int) -> bytes:
    return OK


def test_every_request_is_answered_and_counted_by_its_status() -> None:
    async def some_refused(number: int) -> bytes:
        return OK if number % 4 else b"HTTP/1.1 429 Too Many\r\ncontent-length: 33\r\n\r\n" + SLOW_DOWN

    found = drive(some_refused, rate=400, count=200)

    assert found.offered == found.answered == 200
    assert {status: seen.count for status, seen in found.by_status.items()} == {200: 150, 429: 50}
    assert found.errors == {}
    assert found.latency.count == 200
    told = report(found, endpoint="late", url="x", schedule={}, schedule_s=0.5)
    assert told["answers"]["429"]["said"] == "slow down"
    assert "said" not in told["answers"]["200"]


def test_a_stall_of_half_a_second_shows_in_the_percentiles_with_many_connections_and_with_one() -> None:
    """Planted coordinated omission: a client that waits for answers would see one slow request of 300."""

    class Stalling:
        """Answers at once, but for half a second in which it answers nobody."""

        def __init__(self) -> None:
            self.until = 0.0

        async def __call__(self, number: int) -> bytes:
            if number == 100:
                self.until = time.perf_counter() + 0.5
            await asyncio.sleep(max(0.0, self.until - time.perf_counter()))
            return OK

    for connections in (512, 1):
        found = drive(Stalling(), rate=300, count=300, connections=connections)

        # half a second at 300 a second: half of the requests were due in it, and waited a quarter on average
        assert found.answered == 300
        assert found.latency.max >= 450_000
        assert found.latency.percentile(90) >= 300_000
        assert found.latency.percentile(1) <= 250_000  # nor is everything counted as stalled
        assert found.held_back == 0 if connections == 512 else found.held_back >= 100
        told = report(found, endpoint="late", url="x", schedule={}, schedule_s=1.0)
        assert told["latency_ms"]["p99"] >= 450
        assert (
            "waited for a free connection" in told["generator"]["said"]
            if connections == 1
            else told["generator"]["held_back"] == 0
        )


def test_a_client_that_waits_for_answers_would_have_hidden_the_stall() -> None:
    """The same stall measured from when requests really went out, one after another: the guard's own check."""
    asked: list[tuple[float, float]] = []
    stalled: list[float] = []

    async def stall_once(number: int) -> bytes:
        if number == 100:
            stalled.append(time.perf_counter())
            await asyncio.sleep(0.2)
            stalled.append(time.perf_counter())
        return OK

    async def run() -> None:
        async with server(stall_once) as address:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            for _ in range(300):
                start = time.perf_counter()
                writer.write(REQUEST)
                await reader.readexactly(len(OK))
                asked.append((start, time.perf_counter()))
            writer.close()

    on_the_loop(run())

    began, ended = stalled
    assert [n for n, (start, end) in enumerate(asked) if start < ended and end > began] == [
        99
    ]  # one of 300 knows of it


def test_a_request_that_takes_too_long_is_given_up_and_counts_as_long_as_it_waited() -> None:
    async def never_the_fifth(number: int) -> bytes:
        if number == 5:
            await asyncio.Event().wait()
        return OK

    found = drive(never_the_fifth, rate=100, count=20, timeout_s=1.0)

    # on a machine that stands still for a second others are given up too
    assert set(found.errors) == {"timed out"}
    assert found.answered == 20 - found.errors["timed out"]
    assert found.latency.count == 20
    assert found.latency.max >= 999_999  # in whole microseconds, cut off


def test_connections_that_break_cost_their_request_only() -> None:
    async def break_the_third(number: int) -> bytes | None:
        return None if number == 3 else OK

    found = drive(break_the_third, rate=200, count=40, connections=2)

    assert found.offered == 40
    assert found.answered == 39
    assert sum(found.errors.values()) == 1


@pytest.mark.parametrize("answer", [b"SSH-2.0-nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_no_http_is_an_error_and_ends(answer: bytes) -> None:
    async def nonsense(_number: int) -> bytes:
        return answer

    found = drive(nonsense, rate=100, count=5)

    assert found.answered == 0
    assert sum(found.errors.values()) == 5


def test_answers_that_end_the_connection_in_pieces_and_in_chunks_are_whole() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ]

    async def in_turn(number: int) -> bytes:
        return answers[number % 3]

    found = drive(in_turn, rate=100, count=30, connections=3)

    assert {status: seen.count for status, seen in found.by_status.items()} == {200: 30}
    assert found.errors == {}


def test_nobody_there_is_told_and_ends() -> None:
    async def run() -> Measured:
        with socket.socket() as taken:  # bound and not listening: nobody else can be given its port meanwhile
            taken.bind(("127.0.0.1", 0))
            arrivals = ((n / 100, REQUEST) for n in range(10))
            driver = Driver(Address(*taken.getsockname()), arrivals, expected_s=0.1)
            return await driver.run(lambda _message, _fraction: None)

    found = on_the_loop(run())

    assert found.answered == 0
    assert sum(found.errors.values()) == 10
    assert all(kind.startswith("not connected") for kind in found.errors)


def test_a_generator_that_is_late_says_so() -> None:
    slept = False

    def arrivals() -> object:
        nonlocal slept
        for n in range(200):
            if n == 100:  # the generator itself is busy with something else
                time.sleep(0.5)
                slept = True
            yield (n / 400, REQUEST)

    async def run() -> Measured:
        async with server(at_once) as address:
            driver = Driver(address, iter(arrivals()), expected_s=0.5)  # type: ignore[call-overload]
            return await driver.run(lambda _message, _fraction: None)

    found = on_the_loop(run())
    told = report(found, endpoint="late", url="x", schedule={}, schedule_s=0.5)

    assert slept
    assert found.lateness.max >= 400_000
    assert not told["generator"]["ok"]
    assert "after their time" in told["generator"]["said"]


@pytest.mark.parametrize("more", [{"connections_max": 0}, {"connections_max": 10**6}, {"timeout_s": 0.0}])
def test_bounds_that_are_none_are_refused(more: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="choose"):
        Driver(Address("127.0.0.1", 1), iter(()), expected_s=1.0, **more)  # type: ignore[arg-type]


def test_the_pacer_wakes_within_a_fraction_of_a_millisecond_and_forgets_an_earlier_arming() -> None:
    async def run() -> list[float]:
        woken: list[float] = []
        done = asyncio.Event()

        def call() -> None:
            woken.append(time.perf_counter())
            done.set()

        pacer = Pacer(asyncio.get_running_loop(), call)
        pacer.arm(3600.0)
        start = time.perf_counter()
        pacer.arm(0.0203)
        await asyncio.wait_for(done.wait(), 30)
        pacer.close()
        return [moment - start for moment in woken]

    (late,) = on_the_loop(run())

    assert late >= 0.0203
