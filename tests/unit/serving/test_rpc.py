"""The gRPC face by itself: what it tells a gateway, how it reads one that lies, dies or keeps silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from taut.core.errors import DeadlineExceeded, Unavailable
from taut.entrypoints.errors import GRPC, TABLE
from taut.serving.rpc import RpcServer, Service, Upstream
from taut.serving.rpc.messages import HEALTH, INFERENCE, Messages
from taut.serving.upstream import Answer

READY = Answer(200, {}, b'{"ready":true}')


class FakeUpstream(Upstream):
    """Answers as it is told to, and keeps what it was asked."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.given = answer
        self.asked: list[tuple[str, dict[str, str], float]] = []

    async def ask(
        self, method: str, path: str, headers: Any = (), body: bytes = b"", *, timeout_s: float
    ) -> Answer:
        self.asked.append((f"{method} {path}", dict(headers), timeout_s))
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@contextlib.asynccontextmanager
async def serving(
    upstream: Upstream, *, arrival_s: float = 20.0
) -> AsyncIterator[tuple[grpc.aio.Channel, list[BaseException]]]:
    failures: list[BaseException] = []
    service = Service(upstream, codes=GRPC, log_failure=failures.append, arrival_s=arrival_s)
    server = RpcServer(service, "127.0.0.1", 0)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel, failures
    finally:
        await server.drain(timeout_s=1.0)


def call(
    upstream: Upstream, method: str, **more: Any
) -> tuple[grpc.StatusCode, str, dict[str, str], list[BaseException]]:
    """Return how one call with an empty message ends: its code, its message, its trailing metadata, failures of ours."""

    async def run() -> Any:
        async with serving(upstream) as (channel, failures):
            made = channel.unary_unary(f"/{INFERENCE}/{method}")(b"\n\1x", **more)
            found = await made.code(), await made.details() or "", await made.trailing_metadata()
            return *found[:2], dict(found[2] or ()), failures

    found: tuple[grpc.StatusCode, str, dict[str, str], list[BaseException]] = asyncio.run(run())
    return found


def test_connections_beyond_the_bound_are_closed_and_those_within_are_served() -> None:
    async def run() -> None:
        service = Service(FakeUpstream(READY), codes=GRPC, log_failure=lambda _: None)
        server = RpcServer(service, "127.0.0.1", 0, max_connections=4)
        await server.start()

        async def greeted() -> tuple[bool, asyncio.StreamWriter]:
            """Whether a connection that says hello in HTTP/2 hears anything."""
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            with contextlib.suppress(ConnectionError):
                return bool(await reader.read(1)), writer
            return False, writer

        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await channel.channel_ready()
                found = [await greeted() for _ in range(6)]
                assert [heard for heard, _ in found] == [True] * 3 + [False] * 3
                request = Messages()["HealthCheckRequest"]().SerializeToString()
                await channel.unary_unary(f"/{HEALTH}/Check")(request, timeout=60)
                found[0][1].close()
                async with asyncio.timeout(90):  # a place that became free is given again
                    while not (last := await greeted())[0]:
                        last[1].close()
                        await asyncio.sleep(0.01)
                for _, writer in (*found, last):
                    writer.close()
        finally:
            await server.drain(timeout_s=1.0)

    asyncio.run(run())


def test_every_error_has_a_status_code_of_grpc() -> None:
    assert set(GRPC) == set(TABLE)
    assert set(GRPC.values()) <= set(grpc.StatusCode.__members__) - {"OK", "UNKNOWN", "CANCELLED"}


@pytest.mark.parametrize(
    ("given", "timeout", "told_ms"),
    [
        ((), None, None),
        ((("taut-deadline-ms", "700"),), None, (700, 700)),
        ((), 5.0, (1, 5100)),  # gRPC rounds what is left of a time to its own ticks
        ((("taut-deadline-ms", "700"),), 60.0, (700, 700)),
        ((("taut-deadline-ms", "60000"),), 5.0, (1, 5100)),
    ],
    ids=["neither", "metadata", "the call's own", "metadata is shorter", "the call's own is shorter"],
)
def test_a_gateway_is_told_the_shorter_deadline(given: Any, timeout: float | None, told_ms: Any) -> None:
    upstream = FakeUpstream(Answer(200, {}, b'{"ready":true,"name":"x"}'))

    code, *_ = call(
        upstream,
        "ModelReady",
        metadata=(("authorization", "Bearer x"), ("other", "y"), *given),
        timeout=timeout,
    )

    [(asked, headers, timeout_s)] = upstream.asked
    assert (code, asked) == (grpc.StatusCode.OK, "GET /v2/models/x/ready")
    found = headers.pop("taut-deadline-ms", None)
    assert headers == {"authorization": "Bearer x"}
    if told_ms is None:
        assert found is None
    else:
        assert told_ms[0] <= int(found or 0) <= told_ms[1]
    assert timeout_s <= (600 if timeout is None else timeout) * 1.05 + 5  # grpc rounds a deadline up


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("ModelInfer", Answer(200, {}, b"{}")),
        ("ModelInfer", Answer(200, {"inference-header-content-length": "2"}, b"{}")),
        ("ModelInfer", Answer(502, {}, b"<html>")),
        ("ModelReady", Answer(200, {}, b"")),
        ("ModelReady", Answer(200, {}, b"[]")),
        ("ModelMetadata", Answer(200, {}, b'{"name":1}')),
        ("ServerMetadata", Answer(200, {}, b'{"name":null,"version":2,"extensions":3}')),
        ("ServerLive", RuntimeError("secret detail")),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_our_failure_and_shows_nothing(method: str, answer: Any) -> None:
    code, said, _, failures = call(FakeUpstream(answer), method)

    assert code is grpc.StatusCode.INTERNAL
    assert "look into its log" in said
    assert "secret" not in said
    assert len(failures) == 1


def test_a_refusal_says_when_to_come_again_to_people_and_to_clients() -> None:
    body = json.dumps({"error": {"code": "exhausted", "message": "wait", "request_id": "req_1"}}).encode()
    headers = {"retry-after": "3", "taut-request-id": "req_1", "content-type": "application/json"}

    code, said, told, _ = call(FakeUpstream(Answer(429, headers, body)), "ModelInfer")

    assert (code, said) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "wait")
    assert told == {
        "retry-after": "3", "grpc-retry-pushback-ms": "3000", "taut-request-id": "req_1", "taut-error-code": "exhausted",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_a_gateway_without_a_snapshot_is_unavailable_and_not_unready(method: str) -> None:
    body = json.dumps(
        {"error": {"code": "unavailable", "message": "no snapshot", "request_id": "r"}}
    ).encode()

    assert call(FakeUpstream(Answer(503, {}, body)), method)[:2] == (
        grpc.StatusCode.UNAVAILABLE,
        "no snapshot",
    )


def test_health_follows_the_gateways_and_watchers_are_bounded() -> None:
    response = Messages()["HealthCheckResponse"]

    async def run() -> None:
        upstream = FakeUpstream(READY)
        async with serving(upstream) as (channel, _):
            watch = channel.unary_stream(f"/{HEALTH}/Watch")
            first = watch(b"")
            assert response.FromString(await first.read()).status == 1
            upstream.given = Unavailable("no gateway")
            assert response.FromString(await first.read()).status == 2
            check = await channel.unary_unary(f"/{HEALTH}/Check")(b"")
            assert response.FromString(check).status == 2
            others = [watch(b"") for _ in range(31)]
            for other in others:
                await other.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(b"").read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            first.cancel()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(b"\xff").read()
            assert caught.value.code() in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )

    asyncio.run(run())


def test_a_message_that_does_not_come_does_not_hold_its_place() -> None:
    async def run() -> None:
        upstream = FakeUpstream(READY)
        async with serving(upstream, arrival_s=0.2) as (channel, failures):
            method = channel.stream_unary(f"/{INFERENCE}/ModelInfer")
            silent = [method() for _ in range(8)]
            for made in silent:
                assert await made.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "did not arrive within 0.2 s" in (await made.details() or "")
            nothing = method()
            await nothing.done_writing()
            assert await nothing.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert upstream.asked == []
            assert failures == []

    asyncio.run(run())


# the way to the gateways

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nTaut-Cache: off\r\n\r\nok"
Behave = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def gateway(behave: Behave) -> AsyncIterator[Upstream]:
    """An HTTP server whose n-th connection behaves so."""
    running: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        try:
            await behave(len(running), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    upstream = Upstream("127.0.0.1", server.sockets[0].getsockname()[1], connections=2)
    try:
        yield upstream
    finally:
        upstream.close()
        server.close()
        await asyncio.wait_for(asyncio.gather(*running), 90)


def test_connections_are_kept_and_one_that_died_is_replaced_by_asking_again() -> None:
    seen: list[int] = []

    async def behave(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            seen.append(number)
            writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # the third question is never answered: it dies over it

    async def run() -> None:
        async with gateway(behave) as upstream:
            for _ in range(5):
                answer = await upstream.ask("GET", "/", timeout_s=5)
                assert answer == Answer(200, {"content-length": "2", "taut-cache": "off"}, b"ok")

    asyncio.run(run())
    assert seen == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", b"nonsense\r\n\r\n"]
)
def test_a_gateway_that_dies_over_a_first_question_or_talks_nonsense_is_unavailable(said: bytes) -> None:
    async def behave(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)

    async def run() -> None:
        async with gateway(behave) as upstream:
            with pytest.raises(Unavailable, match="ask again shortly"):
                await upstream.ask("POST", "/", body=b"", timeout_s=5)

    asyncio.run(run())


def test_nobody_listens_and_somebody_keeps_silent() -> None:
    async def behave(_: int, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        async with gateway(behave) as upstream:
            with pytest.raises(DeadlineExceeded):
                await upstream.ask("GET", "/", timeout_s=0.1)
            asked = [asyncio.create_task(upstream.ask("GET", "/", timeout_s=0.3)) for _ in range(4)]
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(error) for error in done} == {
                DeadlineExceeded
            }  # also of those that waited for a slot
        with pytest.raises(Unavailable):
            await upstream.ask("GET", "/", timeout_s=1)

    asyncio.run(run())


def test_the_answer_to_a_question_that_was_given_up_is_never_taken_for_the_next_ones() -> None:
    async def behave(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number == 1:
            await asyncio.sleep(0.2)
        writer.write(OK.replace(b"ok", b"%02d" % number))
        await reader.read()

    async def run() -> None:
        async with gateway(behave) as upstream:
            with pytest.raises(DeadlineExceeded):
                await upstream.ask("GET", "/slow", timeout_s=0.05)
            assert (await upstream.ask("GET", "/", timeout_s=5)).body == b"02"

    asyncio.run(run())


def test_a_connection_that_is_to_be_closed_is_not_kept() -> None:
    async def behave(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            OK.replace(b"ok", b"%02d" % number).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        )
        await writer.drain()

    async def run() -> None:
        async with gateway(behave) as upstream:
            assert [(await upstream.ask("GET", "/", timeout_s=5)).body for _ in range(3)] == [
                b"01",
                b"02",
                b"03",
            ]

    asyncio.run(run())
