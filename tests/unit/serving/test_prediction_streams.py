"""Predictions as server-sent events: one after the other, each recorded before it leaves, and none for who hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.gateway import AsgiApp, Gateway, GatewayServer, Reply, compile_snapshot
from taut.serving.gateway.events import MAX_STREAMS
from taut.serving.predictions import PredictionReader, PredictionRecord
from taut.serving.snapshot import EndpointConfig
from taut.testing.serving import DataPlane, columns_model, listen_somewhere, now_us, open_gateway

ROWS = [{"x0": float(index), "x1": 0.5, "x2": -0.25} for index in range(5)]
BODY = json.dumps({"instances": ROWS}).encode()


class FakeOnline:
    """An online store in memory that answers on the loop only; a row that is named `slow` never comes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled = 0

    local = False

    async def get(self, feature_set: str, keys: Sequence[tuple[Any, ...]]) -> list[OnlineRow | None]:
        return [await self._get(feature_set, key) for key in keys]

    async def _get(self, _feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        self.asked.append(key[0])
        try:
            await asyncio.sleep(60 if key[0] == "slow" else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return (
            None
            if key[0] == "none"
            else OnlineRow(event_time_us=now_us() - 1_000_000, values=(1.0,), source="mat_1")
        )

    def get_now(self, feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        raise AssertionError(f"a loop may not wait for {feature_set} {key}")


@pytest.fixture
def online() -> FakeOnline:
    return FakeOnline()


@pytest.fixture
def ahead_ns() -> list[int]:
    """How far the gateway's counter is ahead, to be moved by the test."""
    return [0]


@pytest.fixture
def gateway(plane: DataPlane, online: FakeOnline, ahead_ns: list[int]) -> Iterator[Gateway]:
    def counter_ns() -> int:
        return time.perf_counter_ns() + ahead_ns[0]

    with open_gateway(plane.home, SystemRandom(), online=online, counter_ns=counter_ns) as made:
        snapshot = plane.snapshot(plane.endpoint(), windy(plane))
        made.install(compile_snapshot(snapshot, home=plane.home, before=None))
        yield made


def windy(plane: DataPlane) -> EndpointConfig:
    """An endpoint whose rows need a feature each."""
    request = (Column("carrier", DType.STRING), Column("origin", DType.STRING))
    signature = ModelSignature(
        request=request,
        inputs=(
            ModelInput(column=Column("wind", DType.FLOAT), feature_set="weather"),
            ModelInput(column=request[0]),
        ),
        lookups=(
            FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",), max_age_s=60.0),
        ),
        output="value",
        tensor="columns",
    )
    served = plane.served(
        columns_model(["wind"], "carrier"), signature, version="windy@2",
        feature_columns={"weather": {"mat_1": ("wind",)}},
    )  # fmt: skip
    return EndpointConfig(name="windy", live=served)


def headers(plane: DataPlane, **more: str) -> list[tuple[bytes, bytes]]:
    said = {"authorization": f"Bearer {plane.token()}", "accept": "text/event-stream", **more}
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]


def origins(*names: str) -> bytes:
    return json.dumps({"instances": [{"carrier": "AA", "origin": name} for name in names]}).encode()


async def ask(gateway: Gateway, path: str, body: bytes, sent: list[tuple[bytes, bytes]]) -> Reply:
    found = gateway.answer("POST", path, sent, body)
    return found if isinstance(found, Reply) else await found


def parsed(data: bytes) -> list[tuple[str, Any]]:
    """Return the events of a stream."""
    found = []
    *blocks, rest = data.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        name, value = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(value.removeprefix("data: "))))
    return found


async def events(reply: Reply) -> list[tuple[str, Any]]:
    assert reply.stream is not None, reply
    return parsed(b"".join([part async for part in reply.stream]))


def records(plane: DataPlane) -> list[PredictionRecord]:
    return list(PredictionReader(plane.home / "log" / "predictions").records())


@pytest.mark.parametrize(
    ("size", "counts"), [(None, [1, 1, 1, 1, 1]), ("2", [2, 2, 1]), ("1000", [5])], ids=["one", "two", "all"]
)
def test_rows_come_in_order_each_event_with_its_own_record_and_the_last_says_it_was_all(
    gateway: Gateway, plane: DataPlane, size: str | None, counts: list[int]
) -> None:
    more = {} if size is None else {"taut_stream_rows": size}

    async def run() -> tuple[Reply, list[tuple[str, Any]]]:
        reply = await ask(gateway, "/v1/predict/delay", BODY, headers(plane, **more))
        return reply, await events(reply)

    reply, found = asyncio.run(run())
    whole = asyncio.run(ask(gateway, "/v1/predict/delay", BODY, headers(plane, accept="application/json")))

    told = dict(reply.header_list())
    assert (told[b"content-type"], b"content-length" in told) == (b"text/event-stream", False)
    *parts, (last, done) = found
    assert [name for name, _ in parts] == ["predictions"] * len(counts)
    assert [len(part["predictions"]) for _, part in parts] == counts
    assert [row for _, part in parts for row in part["predictions"]] == json.loads(whole.body)["predictions"]
    assert (last, done) == (
        "done",
        {
            "request_id": told[b"taut-request-id"].decode(), "model_version": "delay@1", "release": "rel_delay_1",
            "rows": 5, "events": len(counts),
        },
    )  # fmt: skip
    logged = records(plane)[: len(counts)]
    assert [record.request_id for record in logged] == [part["request_id"] for _, part in parts]
    assert logged[0].request_id == done["request_id"]
    assert [row for record in logged for row in record.requests()] == ROWS
    assert gateway.streams.open == 0


def test_each_record_is_written_before_its_event_leaves(gateway: Gateway, plane: DataPlane) -> None:
    async def run() -> int:
        reply = await ask(gateway, "/v1/predict/delay", BODY, headers(plane))
        assert reply.stream is not None
        count = 0
        async for part in reply.stream:
            if part.startswith(b"event: predictions"):
                count += 1
                assert parsed(part)[0][1]["request_id"] == records(plane)[-1].request_id
                assert len(records(plane)) == count
        return count

    assert asyncio.run(run()) == 5


def test_what_is_refused_at_once_is_an_ordinary_refusal(gateway: Gateway, plane: DataPlane) -> None:
    for status, path, body, sent in (
        (401, "/v1/predict/delay", BODY, headers(plane, authorization="Bearer nonsense")),
        (400, "/v1/predict/delay", b"{", headers(plane)),
        (422, "/v1/predict/delay", b'{"instances":[{"x0":1}]}', headers(plane)),
        (400, "/v1/predict/delay", BODY, headers(plane, taut_stream_rows="0")),
        (400, "/v1/predict/delay", BODY, headers(plane, taut_stream_rows="1001")),
        (422, "/v1/predict/windy", origins("none", "JFK"), headers(plane)),
    ):
        reply = asyncio.run(ask(gateway, path, body, sent))
        assert (reply.status, reply.stream) == (status, None)
        assert gateway.streams.open == 0


def test_a_fault_on_the_way_is_the_last_event_and_no_end_is_told(
    gateway: Gateway, plane: DataPlane, online: FakeOnline
) -> None:
    async def run() -> list[tuple[str, Any]]:
        sent = headers(plane)
        return await events(await ask(gateway, "/v1/predict/windy", origins("JFK", "none", "EWR"), sent))

    (first, part), (last, said) = asyncio.run(run())

    assert (first, part["predictions"]) == ("predictions", [{"value": 2.0}])
    assert (last, said["error"]["code"]) == ("error", "invalid_input")
    assert online.asked == ["JFK", "none"]
    assert [record.status for record in records(plane)] == [200, 422]
    assert gateway.streams.open == 0


def test_the_deadline_is_that_of_the_whole_stream(
    gateway: Gateway, plane: DataPlane, ahead_ns: list[int]
) -> None:
    async def run() -> list[tuple[str, Any]]:
        sent = headers(plane, taut_deadline_ms="60000")
        reply = await ask(gateway, "/v1/predict/windy", origins("JFK", "EWR"), sent)
        assert reply.stream is not None
        found = [await anext(aiter(reply.stream))]
        ahead_ns[0] = 61 * 10**9
        return parsed(b"".join([*found, *[part async for part in reply.stream]]))

    (_, _), (last, said) = asyncio.run(run())

    assert (last, said["error"]["code"]) == ("error", "deadline_exceeded")


def test_more_streams_than_the_bound_are_shed_and_a_closed_one_makes_room(
    gateway: Gateway, plane: DataPlane
) -> None:
    async def run() -> None:
        sent = headers(plane)
        streams = [await ask(gateway, "/v1/predict/delay", BODY, sent) for _ in range(MAX_STREAMS)]
        refused = await ask(gateway, "/v1/predict/delay", BODY, sent)
        assert (refused.status, b"retry-after" in dict(refused.header_list())) == (503, True)
        for reply in streams:
            assert reply.stream is not None
            reply.stream.close()
            reply.stream.close()
        assert len(await events(await ask(gateway, "/v1/predict/delay", BODY, sent))) == 6

    asyncio.run(run())
    assert gateway.streams.open == 0


@contextlib.asynccontextmanager
async def listening(gateway: Gateway, *, stalled_s: float = 20.0) -> AsyncIterator[int]:
    listener = listen_somewhere()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = GatewayServer(gateway, listener, stalled_s=stalled_s)
    await server.start()
    try:
        yield listener.getsockname()[1]
    finally:
        await server.drain(timeout_s=2.0)
        listener.close()


def request(plane: DataPlane, path: str, body: bytes, *, cut: int | None = None) -> list[bytes]:
    """Return an HTTP request; in two pieces where it is cut, which makes it go the long way."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers(plane))
    whole = b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path.encode(), lines, len(body), body,
    )  # fmt: skip
    return [whole] if cut is None else [whole[:-cut], whole[-cut:]]


@pytest.mark.parametrize("cut", [None, 10], ids=["at once", "in pieces"])
def test_a_stream_goes_over_http_to_its_end_and_closes_the_connection(
    gateway: Gateway, plane: DataPlane, cut: int | None
) -> None:
    async def run() -> bytes:
        async with listening(gateway) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in request(plane, "/v1/predict/delay", BODY, cut=cut):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.05)
            answer = await asyncio.wait_for(reader.read(), 90)
            writer.close()
            return answer

    head, _, data = asyncio.run(run()).partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        data = unchunked(data)

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in head
    assert [name for name, _ in parsed(data)] == ["predictions"] * 5 + ["done"]


def unchunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        parts.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(parts)


@pytest.mark.parametrize("cut", [None, 10], ids=["at once", "in pieces"])
def test_the_work_stops_when_the_reader_hangs_up(
    gateway: Gateway, plane: DataPlane, online: FakeOnline, cut: int | None
) -> None:
    names = ["JFK", "slow", "EWR"] if cut is None else ["JFK"] * 2000

    async def run() -> None:
        async with listening(gateway) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in request(plane, "/v1/predict/windy", origins(*names), cut=cut):
                writer.write(piece)
                await asyncio.sleep(0.05)
            await reader.readuntil(b"event: predictions")
            while cut is None and "slow" not in online.asked:
                await asyncio.sleep(0.01)
            writer.transport.abort()
            async with asyncio.timeout(90):
                while gateway.streams.open:
                    await asyncio.sleep(0.01)

    asyncio.run(run())

    if cut is None:
        assert (online.asked, online.cancelled) == (["JFK", "slow"], 1)
        assert [record.status for record in records(plane)] == [200]
    assert len(records(plane)) < len(names)


@pytest.mark.parametrize("cut", [None, 10], ids=["at once", "in pieces"])
def test_a_reader_who_takes_nothing_is_cut_off_and_his_rows_are_let_go(
    gateway: Gateway, plane: DataPlane, cut: int | None
) -> None:
    many = 3000
    rows = json.dumps({"instances": [{"x0": 1, "x1": 2, "x2": 3}] * many}, separators=(",", ":")).encode()

    async def run() -> None:
        async with listening(gateway, stalled_s=0.3) as port:
            loop = asyncio.get_running_loop()
            with socket.socket() as silent:
                silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                silent.setblocking(False)
                await loop.sock_connect(silent, ("127.0.0.1", port))
                for piece in request(plane, "/v1/predict/delay", rows, cut=cut):
                    await loop.sock_sendall(silent, piece)
                    await asyncio.sleep(0.05)
                async with asyncio.timeout(90):
                    while gateway.streams.open == 0 and gateway.outcomes.answers == 0:
                        await asyncio.sleep(0.01)
                    while gateway.streams.open:
                        await asyncio.sleep(0.01)

    asyncio.run(run())

    assert 0 < len(records(plane)) < many


def test_any_asgi_server_can_send_it(gateway: Gateway, plane: DataPlane) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({"instances": ROWS[:2]}).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/predict/delay", "headers": headers(plane)}
    asyncio.run(AsgiApp(gateway)(scope, receive, send))

    assert [message.get("more_body") for message in sent[1:]] == [True, True, True, True, None]
    assert [name for name, _ in parsed(b"".join(message.get("body", b"") for message in sent))] == [
        "predictions", "predictions", "done",
    ]  # fmt: skip
