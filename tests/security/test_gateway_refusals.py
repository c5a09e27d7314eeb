"""What a gateway must refuse: forged bearers, malformed and oversized HTTP, slow and greedy clients, prying eyes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, GatewayServer, World, compile_snapshot
from taut.serving.predictions import PredictionReader
from taut.serving.snapshot import GatewaySettings
from taut.testing.serving import STATUSES, DataPlane, listen_somewhere, now_us, open_gateway, with_fields

BODY = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}).encode()


@contextlib.asynccontextmanager
async def serving(
    plane: DataPlane, *, arrival_timeout_s: float = 20.0, idle_timeout_s: float = 75.0, **more: Any
) -> AsyncIterator[int]:
    with open_gateway(plane.home, SystemRandom()) as gateway:
        snapshot = plane.snapshot(plane.endpoint(), **more)
        gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
        listener = listen_somewhere()
        port = listener.getsockname()[1]
        server = GatewayServer(
            gateway, listener, arrival_timeout_s=arrival_timeout_s, idle_timeout_s=idle_timeout_s
        )
        await server.start()
        try:
            yield port
        finally:
            await server.drain(timeout_s=2.0)
            listener.close()


def talk(port: int, *parts: bytes, pause_s: float = 0.0, timeout_s: float = 60.0) -> bytes:
    """Send raw bytes, then return everything that comes back until the other side closes or goes quiet."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        with contextlib.suppress(ConnectionError, TimeoutError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := client.recv(65_536):
                answer += part
    return answer


def say(
    plane: DataPlane, *parts: bytes, pause_s: float = 0.0, timeout_s: float = 60.0, **server: Any
) -> bytes:
    async def run() -> bytes:
        async with serving(plane, **server) as port:
            return await asyncio.to_thread(talk, port, *parts, pause_s=pause_s, timeout_s=timeout_s)

    return asyncio.run(run())


def request(
    bearer: str | None,
    body: bytes = BODY,
    *,
    path: str = "/v1/predict/delay",
    close: bool = True,
    extra: str = "",
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    if bearer is not None:
        lines.append(f"authorization: Bearer {bearer}")
    if close:
        lines.append("connection: close")
    return ("\r\n".join([*lines, *extra.splitlines()]) + "\r\n\r\n").encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def error(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return found


def test_forged_foreign_expired_and_odd_bearers_are_nobody(plane: DataPlane, tmp_path: Path) -> None:
    stranger = DataPlane(tmp_path / "other", FileKeys(tmp_path / "other-keys", random=SystemRandom()))
    good = plane.token()
    head, claims, signature = good.split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0"  # {"alg":"none","typ":"at+jwt"}
    bearers = [
        None, "", "x", stranger.token(), plane.token(now_s=time.time() - 4000), f"{head}.{claims}.", f"{none}.{claims}.",
        f"{head}.{claims}.{signature[:-4]}AAAA", f"{head}.{claims[:-2]}AA.{signature}", plane.api_key + "x", "taut_k1_", "taut__",
        "a" * 9000, "é",
    ]  # fmt: skip

    async def run() -> list[bytes]:
        async with serving(plane) as port:
            return [await asyncio.to_thread(talk, port, request(bearer)) for bearer in [*bearers, good]]

    *refused, fine = asyncio.run(run())

    assert [status(answer) for answer in refused] == [401] * len(bearers)
    assert status(fine) == 200
    for bearer, answer in zip(bearers, refused, strict=True):
        assert error(answer)["code"] == "unauthenticated"
        assert b"www-authenticate: Bearer" in answer
        assert not bearer or len(bearer) < 10 or bearer.encode("latin-1") not in answer
    assert [record.status for record in PredictionReader(plane.home / "log" / "predictions").records()] == [
        200
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nhost x\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_or_could_smuggle_a_request_is_a_400_and_the_end(
    plane: DataPlane, garbage: bytes
) -> None:
    answer = say(plane, garbage)

    assert status(answer) == 400
    assert b"connection: close" in answer
    assert error(answer)["code"] == "malformed"
    assert answer.count(b"HTTP/1.1") == 1


def test_headers_beyond_their_bounds_end_the_connection(plane: DataPlane) -> None:
    many = request(plane.token(), extra="\r\n".join(f"x-{number}: y" for number in range(200)))
    endless = b"GET /v2 HTTP/1.1\r\nx: " + b"a" * 300_000

    assert status(say(plane, many)) == 413
    assert b"200 OK" not in say(plane, endless, b"a" * 100_000, b"\r\n\r\n", pause_s=0.1)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_bound_is_a_413_before_it_is_read_whole(plane: DataPlane, chunked: bool) -> None:
    bound = GatewaySettings(max_body_bytes=100_000)
    token = plane.token()
    head = f"POST /v1/predict/delay HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    if chunked:
        parts = [
            (head + "transfer-encoding: chunked\r\n\r\n").encode(),
            *[b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * 20,
        ]
    else:
        parts = [(head + "content-length: 500000000\r\n\r\n").encode(), b" " * 50_000]

    answer = say(plane, *parts, settings=bound)

    assert status(answer) == 413
    assert error(answer)["code"] == "too_large"
    assert b"connection: close" in answer


def test_too_many_rows_are_a_413(plane: DataPlane) -> None:
    rows = json.dumps({"instances": [{"x0": 1, "x1": 2, "x2": 3}] * 11}).encode()

    assert status(say(plane, request(plane.token(), rows), settings=GatewaySettings(max_rows=10))) == 413


@pytest.mark.parametrize(
    "parts",
    [
        (b"POST /v1/predict/delay HT",),
        (b"POST /v1/predict/delay HTTP/1.1\r\nhost: x\r\nx-slow: ", b"a", b"a", b"a"),
        (b"POST /v1/predict/delay HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n", b"{", b" ", b" "),
        (
            b"POST /v1/predict/delay HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
            b"1\r\n \r\n",
        ),
        (),
    ],
)
def test_whoever_sends_slowly_loses_the_connection_and_others_are_served_meanwhile(
    plane: DataPlane, parts: tuple[bytes, ...]
) -> None:
    async def run() -> tuple[bytes, float, bytes]:
        async with serving(plane, arrival_timeout_s=1.0) as port:
            start = time.monotonic()
            slow = asyncio.create_task(asyncio.to_thread(talk, port, *parts, pause_s=0.3, timeout_s=60.0))
            await asyncio.sleep(0.3)
            fast = await asyncio.to_thread(talk, port, request(plane.token()))
            answer = await slow
            return answer, time.monotonic() - start, fast

    answer, took_s, fast = asyncio.run(run())

    assert status(fast) == 200
    assert took_s < 50.0  # ended by the gateway, not by our own patience
    assert b"200 OK" not in answer


def test_an_idle_connection_is_closed_after_its_time(plane: DataPlane) -> None:
    start = time.monotonic()

    answer = say(plane, request(plane.token(), close=False), idle_timeout_s=0.5, timeout_s=60.0)

    assert status(answer) == 200
    assert time.monotonic() - start < 50.0  # as above


def test_pipelined_requests_are_answered_in_order_each_once(plane: DataPlane) -> None:
    token = plane.token()
    bodies = [
        json.dumps({"instances": [{"x0": float(number), "x1": 0.0, "x2": 0.0}]}).encode()
        for number in range(30)
    ]
    sent = b"".join(request(token, body, close=number == 29) for number, body in enumerate(bodies))

    async def run() -> tuple[bytes, bytes]:
        async with serving(plane) as port:
            together = await asyncio.to_thread(talk, port, sent)
            split = await asyncio.to_thread(
                talk, port, *[sent[at : at + 97] for at in range(0, len(sent), 97)]
            )
            return together, split

    for answer in asyncio.run(run()):
        found = [
            json.loads(part.partition(b"\r\n\r\n")[2]) for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
        ]
        probabilities = [one["predictions"][0]["probability"] for one in found]
        assert len(found) == 30
        assert probabilities == sorted(probabilities)


def test_nothing_after_connection_close_is_answered(plane: DataPlane) -> None:
    answer = say(plane, request(plane.token(), close=True) + request(plane.token(), close=True))

    assert answer.count(b"HTTP/1.1 200 OK") == 1


def test_a_flood_of_pipelined_requests_is_answered_or_cut_and_others_are_served(plane: DataPlane) -> None:
    flood = request(plane.token(), close=False) * 2000

    async def run() -> tuple[bytes, bytes]:
        async with serving(plane) as port:
            greedy = asyncio.create_task(asyncio.to_thread(talk, port, flood, timeout_s=2.0))
            await asyncio.sleep(0.05)
            other = await asyncio.to_thread(talk, port, request(plane.token()))
            return await greedy, other

    greedy, other = asyncio.run(run())

    assert status(other) == 200
    *answers, _ = greedy.split(b"HTTP/1.1 ")[1:]  # the last one may have been cut
    assert all(answer.startswith(b"200 OK") for answer in answers)


def test_expect_100_continue_and_head_are_honoured(plane: DataPlane) -> None:
    head = request(plane.token(), extra="expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    async def run() -> bytes:
        async with serving(plane) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            told = await reader.readuntil(b"\r\n\r\n")
            writer.write(BODY)
            answer = told + await reader.read()
            writer.close()
            return answer

    expected = asyncio.run(run())
    headed = say(plane, b"HEAD /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert expected.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert status(headed) == 200
    assert headed.endswith(b"\r\n\r\n")


def test_an_upgrade_is_ignored_and_answered_as_plain_http(plane: DataPlane) -> None:
    answer = say(
        plane,
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
    )

    assert status(answer) == 200


def test_strangers_learn_no_endpoint_name_from_errors(plane: DataPlane) -> None:
    auditor = plane.token("eve", roles=("auditor",))

    async def run() -> list[bytes]:
        async with serving(plane) as port:
            asked = [
                (None, "/v1/predict/dela"),
                ("x", "/v2/models/dela"),
                (auditor, "/v1/predict/dela"),
                (None, "/v1/predict/delay"),
            ]
            return [await asyncio.to_thread(talk, port, request(bearer, path=path)) for bearer, path in asked]

    answers = asyncio.run(run())

    assert [status(answer) for answer in answers] == [401, 401, 404, 401]
    assert all(b"'delay'" not in answer for answer in answers)


def test_a_subject_or_an_id_cannot_split_the_response(plane: DataPlane) -> None:
    evil = json.dumps(
        {
            "id": "a\r\nset-cookie: x",
            "inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}],
        }
    ).encode()

    answer = say(plane, request(plane.token(), evil, path="/v2/models/delay/infer"))

    assert status(answer) == 200
    assert b"\r\nset-cookie" not in answer


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x0", "x1", "x2", "name", "shape", "data", "inputs", "instances"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture
def alive(plane: DataPlane) -> Iterator[tuple[DataPlane, Any]]:
    with open_gateway(plane.home, SystemRandom()) as gateway:
        gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        yield plane, gateway


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.one_of(
        json_values.map(lambda value: json.dumps(value).encode()),
        json_values.map(lambda value: json.dumps({"instances": [value]}).encode()),
        json_values.map(lambda value: json.dumps({"inputs": [value]}).encode()),
        st.lists(json_values, max_size=4).map(
            lambda data: json.dumps({"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP32", "data": data}]}).encode()
        ),
        st.binary(max_size=60),
    ),
    path=st.sampled_from(["/v1/predict/delay", "/v2/models/delay/infer"]),
)  # fmt: skip
def test_whatever_is_sent_the_answer_is_a_clear_4xx_or_an_answer(
    alive: tuple[DataPlane, Any], document: bytes, path: str
) -> None:
    plane, gateway = alive
    headers = [(b"authorization", f"Bearer {plane.api_key}".encode())]

    reply = gateway.answer("POST", path, headers, document)

    assert reply.status in (200, 400, 413, 422), reply.body
    if reply.status != 200:
        assert json.loads(reply.body)["error"]["message"]
        assert b"Traceback" not in reply.body


def test_an_identity_that_was_sent_twice_is_refused_rather_than_chosen(plane: DataPlane) -> None:
    answer = say(plane, request(plane.token(), extra="Authorization: Bearer other"))

    assert status(answer) == 400
    assert "authorization was sent more than once" in error(answer)["message"]


class BrokenLog:
    """A prediction log with a planted fault."""

    def seal_to(self, _key: str) -> None:
        pass

    def append(self, payload: bytes) -> None:
        raise RuntimeError("secret detail")


def test_a_planted_fault_of_ours_shows_neither_trace_nor_words_of_it(plane: DataPlane) -> None:
    heard: list[str] = []
    random = SystemRandom()
    with ThreadPoolExecutor(1) as pool:
        gateway = Gateway(
            log=BrokenLog(),  # type: ignore[arg-type]  # only what the gateway calls
            online=None,
            statuses=STATUSES,
            world=World(now_us, time.monotonic, time.perf_counter_ns, random),
            pool=pool,
            log_failure=lambda request_id, failure: heard.append(f"{request_id} {failure}"),
        )
        gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        bearer = f"Bearer {plane.token()}".encode()
        reply: Any = gateway.answer("POST", "/v1/predict/delay", [(b"authorization", bearer)], BODY)

    assert reply.status == 500
    assert b"secret detail" not in reply.body
    assert heard == [f"{json.loads(reply.body)['error']['request_id']} secret detail"]


def test_revocation_reaches_a_bearer_that_was_remembered(plane: DataPlane) -> None:
    token = plane.token(jti="stolen")
    headers = [(b"authorization", f"Bearer {token}".encode())]
    with open_gateway(plane.home, SystemRandom()) as gateway:
        gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        before: Any = gateway.answer("POST", "/v1/predict/delay", headers, BODY)
        revoked = plane.snapshot(plane.endpoint(), identity=plane.identity(revoked=("stolen",)))
        gateway.install(compile_snapshot(revoked, home=plane.home, before=gateway.active))
        after: Any = gateway.answer("POST", "/v1/predict/delay", headers, BODY)

    assert (before.status, after.status) == (200, 401)


def test_a_snapshot_whose_policy_was_swapped_is_refused(plane: DataPlane) -> None:
    from taut.core.errors import Corrupt
    from taut.trust.policy import Policy

    snapshot = with_fields(
        plane.snapshot(plane.endpoint()), policies=Policy("permit(principal, action, resource);").files
    )

    with pytest.raises(Corrupt, match="policy's digest"):
        compile_snapshot(snapshot, home=plane.home, before=None)
