"""Callers who take their time, and too many of them: bounds with short times, so that each is seen to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from attacker import BODY, LIVE, connect, hear, post, push, say, says_well, until

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, GatewayServer, compile_snapshot
from taut.testing.serving import DataPlane, listen_somewhere, open_gateway

pytestmark = [pytest.mark.xdist_group("crowded"), pytest.mark.processes]

ROWS = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}] * 2000}).encode()


class Server(NamedTuple):
    plane: DataPlane
    gateway: Gateway
    server: GatewayServer
    port: int

    @property
    def key(self) -> str:
        return self.plane.api_key

    def connections(self) -> int:
        return len(self.server._state.connections)

    def is_well(self) -> bool:
        return says_well(self.port, post(self.key))


Open = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    home = tmp_path_factory.mktemp("slow")
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))

    @contextlib.contextmanager
    def opened(**bounds: Any) -> Iterator[Server]:
        started, found = threading.Event(), list[Server]()
        loop, stop = asyncio.new_event_loop(), asyncio.Event()

        async def serve(gateway: Gateway) -> None:
            listener = listen_somewhere()
            server = GatewayServer(gateway, listener, **bounds)
            await server.start()
            found.append(Server(plane, gateway, server, listener.getsockname()[1]))
            started.set()
            await stop.wait()
            await server.drain(timeout_s=1.0)
            listener.close()

        with open_gateway(home, SystemRandom()) as gateway:
            gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=home, before=None))
            thread = threading.Thread(target=lambda: loop.run_until_complete(serve(gateway)))
            thread.start()
            assert started.wait(90)
            try:
                yield found[0]
            finally:
                loop.call_soon_threadsafe(stop.set)
                thread.join(90)
                loop.close()

    return opened


def test_whoever_does_not_read_his_answers_is_cut_off(opened: Open) -> None:
    with opened(stalled_s=2.0) as server, connect(server.port, 0.3) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        push(greedy, post(server.key, body=ROWS), most_bytes=2000 * len(ROWS))
        assert server.connections() == 1
        assert server.is_well()

        until(lambda: server.connections() == 0)


def test_one_answer_that_is_not_read_does_not_outlive_its_connection(opened: Open) -> None:
    with opened(stalled_s=1.0, idle_timeout_s=1.0) as server, connect(server.port) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(60):  # more than the kernel keeps for him, and less than stops us from reading
            greedy.sendall(post(server.key, body=ROWS))

        until(lambda: server.connections() == 0)


@pytest.mark.parametrize(
    "parts",
    [(post(None)[:20],), (post("taut_k1_s3cret")[:-9],), (post("taut_k1_s3cret")[:-9], b" ", b" ", b" ")],
    ids=["headers", "a body", "a dripping body"],
)  # fmt: skip
def test_whoever_is_slow_is_told_so(opened: Open, parts: tuple[bytes, ...]) -> None:
    with opened(arrival_timeout_s=1.0) as server:
        heard = say(server.port, *parts, pause_s=0.3, answers=None)

    assert heard.statuses == [400]
    assert "did not arrive within 1 s" in heard.error()["message"]
    assert heard.ended


def test_many_slow_callers_stall_nobody(opened: Open) -> None:
    with opened(arrival_timeout_s=3.0) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server.port)) for _ in range(300)]
        for number, client in enumerate(slow):
            client.sendall(post(server.key)[: 20 + number % 100])
        for _ in range(5):
            assert server.is_well()
        until(lambda: server.connections() == 0)
        assert {tuple(hear(client).statuses) for client in slow} == {(400,)}


def test_a_bad_request_behind_slow_answers_is_refused_after_them(opened: Open) -> None:
    big = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}] * 9000}).encode()
    with opened() as server:
        heard = say(server.port, post(server.key, body=big) * 3 + b"nonsense\r\n\r\n" + LIVE, answers=None)

    assert heard.statuses == [200, 200, 200, 400]
    assert heard.ended


def test_bodies_that_arrive_together_are_bounded_together(opened: Open) -> None:
    def body_of(size_bytes: int) -> bytes:
        return BODY + b" " * (size_bytes - len(BODY))

    with opened(max_arriving_bytes=1_000_000) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server.port)) for _ in range(4)]
        for client in slow:
            client.sendall(post(server.key, body=body_of(400_000))[:-100])
        until(lambda: len(select.select(slow, [], [], 1.0)[0]) == 2)  # two fit
        heard = [hear(client, 0, quiet_s=0.5) for client in slow]
        refused = [one for one in heard if one.statuses]
        rest = [client for client, one in zip(slow, heard, strict=True) if not one.statuses]
        for client in rest:
            client.sendall(b" " * 100)
        answered = [hear(client).statuses for client in rest]

    assert refused
    assert {one.error()["code"] for one in refused} == {"unavailable"}
    assert all(b"retry-after" in one.data for one in refused)
    assert answered == [[200]] * len(rest)
    assert rest


def test_beyond_the_bound_those_go_that_were_idle_for_longest(opened: Open) -> None:
    with opened(max_connections=32) as server, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(server.port)) for _ in range(16)]
        until(lambda: server.connections() == 16)
        idle = [stack.enter_context(connect(server.port)) for _ in range(16)]
        for client in idle:
            client.sendall(LIVE)
            assert hear(client, quiet_s=0.02).statuses == [200]
        threading.Event().wait(1.2)

        assert server.is_well()

        until(lambda: hear(silent[0], 0, quiet_s=0.02).ended)
        in_turn = [*silent, *idle]
        # from the last to the first: before the one that is found gone, all that were idle for longer went
        gone = [number for number in range(31, -1, -1) if hear(in_turn[number], 0, quiet_s=0.02).ended]
        assert gone[::-1] == list(range(len(gone)))
        assert 0 < len(gone) <= 16


def test_where_all_are_busy_a_new_caller_is_told_so_and_they_are_not_disturbed(opened: Open) -> None:
    with opened(max_connections=32) as server, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(server.port)) for _ in range(32)]
        for client in busy:
            client.sendall(post(server.key)[:-5])
        until(lambda: server.connections() == 32)
        threading.Event().wait(1.2)

        refused = [say(server.port, answers=None) for _ in range(10)]

        assert [one.statuses for one in refused] == [[503]] * 10
        assert all(one.ended and b"retry-after: 2" in one.data for one in refused)
        assert refused[0].error()["code"] == "unavailable"
        for client in busy:
            client.sendall(post(server.key)[-5:])
        assert [hear(client, quiet_s=0.02).statuses for client in busy] == [[200]] * 32
