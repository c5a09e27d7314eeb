"""A gateway that is not admitted yet leaves the door that it shares to others, for as long as they take who comes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from taut.entrypoints.gateway_main import until_admitted


@pytest.fixture
def door() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def test_who_is_taken_by_another_is_left_to_him_until_this_one_is_admitted(door: socket.socket) -> None:
    def take(count: int) -> None:
        for _ in range(count):
            with door.accept()[0] as taken:
                taken.sendall(b"!")

    async def run() -> bool:
        loop, admitted = asyncio.get_running_loop(), asyncio.Event()
        waiting = asyncio.create_task(
            until_admitted(admitted, asyncio.Event(), [door], patience_s=lambda: 0.8, goes_on=lambda: False)
        )
        for _ in range(25):
            await loop.run_in_executor(None, come)
            await asyncio.sleep(0.05)
        left = not waiting.done()
        admitted.set()
        await asyncio.wait_for(waiting, 90)
        return left

    def come() -> None:
        with socket.create_connection(door.getsockname(), timeout=60) as client:
            assert client.recv(1) == b"!"

    other = threading.Thread(target=take, args=(25,))
    other.start()
    try:
        assert asyncio.run(run())
    finally:
        other.join()


@pytest.mark.parametrize("ends", ["somebody waits", "it is to stop"])
def test_whoever_nobody_takes_is_not_kept_waiting_for_ever(door: socket.socket, ends: str) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        waiting = asyncio.create_task(
            until_admitted(asyncio.Event(), stop, [door], patience_s=lambda: 0.2, goes_on=lambda: False)
        )
        await asyncio.sleep(0.5)
        assert not waiting.done(), "nobody came yet"
        if ends == "it is to stop":
            stop.set()
            await asyncio.wait_for(waiting, 90)
            return
        with socket.create_connection(door.getsockname()):
            await asyncio.wait_for(waiting, 90)

    asyncio.run(run())


def test_who_may_go_on_by_grace_does_so_after_a_while_though_nobody_comes(door: socket.socket) -> None:
    asked: list[bool] = []

    def goes_on() -> bool:
        asked.append(True)
        return len(asked) == 3

    async def run() -> None:
        never = asyncio.Event()
        waiting = until_admitted(never, never, [door], patience_s=lambda: 0.1, goes_on=goes_on)
        await asyncio.wait_for(waiting, 90)

    asyncio.run(run())
    assert len(asked) == 3


def test_who_is_kept_waiting_is_served_by_grace_where_there_is_any(door: socket.socket) -> None:
    asked: list[bool] = []

    def goes_on() -> bool:
        asked.append(True)
        return True

    async def run() -> None:
        never = asyncio.Event()
        with socket.create_connection(door.getsockname()):
            waiting = until_admitted(never, never, [door], patience_s=lambda: 0.1, goes_on=goes_on)
            await asyncio.wait_for(waiting, 90)

    asyncio.run(run())
    assert asked
