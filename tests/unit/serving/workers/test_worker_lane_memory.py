"""What a lane refuses leaves nothing behind: an overload would fill the memory, and collecting it stop everybody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import subprocess
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from taut.core.errors import DeadlineExceeded, TautError
from taut.serving.errors import Shed
from taut.serving.runtime import Cost
from taut.serving.workers import Lane, LaneSettings, wire
from taut.serving.workers.worker import Loaded

ROW = {"input": np.zeros((1, 2), np.float32)}


class Mute:
    """A worker that loads and never answers."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        self._sockets: list[socket.socket] = []

    async def hire(self, *_: object) -> tuple[socket.socket, int]:
        here, there = socket.socketpair()
        self._sockets.append(there)
        told = Loaded(
            inputs={"input": ("tensor(float)", 2)}, cost=Cost(base_us=10_000.0, row_us=10_000.0), private_bytes=0
        )  # fmt: skip
        wire.send(there, wire.LOADED, 0, [msgspec.json.encode(told)])
        return here, self.process.pid

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for one in self._sockets:
            one.close()


@pytest.fixture
def mute() -> Iterator[Mute]:
    worker = Mute()
    try:
        yield worker
    finally:
        worker.close()


def test_refusals_are_freed_at_once_without_a_collection(mute: Mute) -> None:
    refused: dict[str, int] = {}

    async def ask(lane: Lane) -> None:
        try:
            await lane.run(ROW, 1, within_s=0.05, priority=5, caller="ada")
        except TautError as error:
            refused[type(error).__name__] = refused.get(type(error).__name__, 0) + 1

    async def flood() -> None:
        lane = Lane("busy@1", mute.hire, LaneSettings(latency_s=0.05), matrix_width=2)
        await lane.start()
        for _ in range(5):
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(ask(lane))
        lane.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(flood())
        left = [one for one in gc.get_objects() if isinstance(one, Shed | DeadlineExceeded)]
    finally:
        gc.enable()

    assert refused["Shed"] > 100
    assert refused["DeadlineExceeded"] > 1
    assert left == []


def test_what_a_lane_keeps_of_a_request_can_be_collected() -> None:
    """An item holds a future, whose refusal holds frames, which hold the item: invisible to the collector, it would stay."""
    from taut.serving.workers.queue import Item

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert gc.is_tracked(Item(1, 0.0, 0, "ada", None, loop.create_future()))
