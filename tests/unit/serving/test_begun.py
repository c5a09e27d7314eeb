"""What is begun where it is asked: once, without a task where it needs none, and ended like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.begun import Begun, begin
from taut.serving.meters import BATCH_ROWS, Histogram
from taut.serving.snapshot import EndpointConfig
from taut.serving.workers import Rota, WorkerModel
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway

BODY = b'{"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}'


def test_what_needs_no_waiting_is_done_at_once() -> None:
    async def add(one: int, other: int) -> int:
        return one + other

    assert begin(add(1, 2)) == 3


def test_what_fails_before_it_waits_fails_at_once() -> None:
    async def fail() -> None:
        raise ValueError("of no use")

    with pytest.raises(ValueError, match="of no use"):
        begin(fail())


@pytest.mark.parametrize("done_before", [True, False])
def test_what_waits_goes_on_where_it_stands_whoever_awaits_it(done_before: bool) -> None:
    seen: list[str] = []

    async def waits(answer: asyncio.Future[int]) -> int:
        seen.append("begun")
        first = await answer
        await asyncio.sleep(0)
        seen.append("ended")
        return first + 1

    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        answers = [loop.create_future(), loop.create_future()]
        found = [begin(waits(answer)) for answer in answers]
        assert seen == ["begun", "begun"]
        for answer in answers:
            if done_before:
                answer.set_result(41)
            else:
                loop.call_soon(answer.set_result, 41)
        one, other = found
        assert isinstance(one, Begun)
        assert isinstance(other, Begun)
        return [await one, await loop.create_task(other)]

    assert asyncio.run(both()) == [42, 42]
    assert seen == ["begun", "begun", "ended", "ended"]


def test_who_is_cancelled_before_the_first_step_hears_of_it_where_he_waits() -> None:
    seen: list[str] = []

    async def waits(answer: asyncio.Future[None]) -> None:
        try:
            await answer
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def cancel() -> None:
        found = begin(waits(asyncio.get_running_loop().create_future()))
        assert isinstance(found, Begun)
        task = asyncio.get_running_loop().create_task(found)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert seen == ["cancelled"]


def test_what_nobody_awaits_gives_back_what_it_holds() -> None:
    held: list[str] = []

    async def holds(answer: asyncio.Future[None]) -> None:
        held.append("a slot")
        try:
            await answer
        finally:
            held.clear()

    async def forget() -> None:
        found = begin(holds(asyncio.get_running_loop().create_future()))
        assert held
        del found

    asyncio.run(forget())
    assert not held


class Lane:
    """Workers of a model that answer when told to, and at once where they were told before."""

    def __init__(self) -> None:
        self.name = "delay@1"
        self.loaded = SimpleNamespace(inputs={"input": ("tensor(float)", 2)}, cost=None)
        self.alive, self.idle, self.asked, self.rota, self.sizes = 1, 1, 0, Rota(), Histogram(BATCH_ROWS)
        self.wanted, self.waiting_rows, self.shed, self.lost, self.spares, self.held_s = 1, 0, 0, 0, 0, 0.0
        self.answer: asyncio.Future[None] | None = None

    async def run(self, _feed: Any, rows: int, **_more: Any) -> Any:
        self.asked += 1
        if self.answer is not None:
            await self.answer
        return np.array([[0.25, 0.75]] * rows, dtype=np.float32)

    def open(self, _key: str, _name: str, _model: bytes, order: Any, *_: Any, **__: Any) -> WorkerModel:
        return WorkerModel(cast(Any, self), order.signature)


@pytest.fixture
def lane() -> Lane:
    return Lane()


@pytest.fixture
def gateway(plane: DataPlane, lane: Lane) -> Iterator[Gateway]:
    live = plane.served(matrix_model(3), matrix_signature(3))
    snapshot = plane.snapshot(EndpointConfig(name="delay", live=live, runtime="worker"))
    with open_gateway(plane.home, SystemRandom()) as made:
        made.install(compile_snapshot(snapshot, home=plane.home, before=None, fleet=cast(Any, lane)))
        yield made


def ask(gateway: Gateway, plane: DataPlane) -> Any:
    headers = [(b"authorization", f"Bearer {plane.token()}".encode())]
    return gateway.answer("POST", "/v1/predict/delay", headers, BODY)


def test_an_answer_that_is_there_at_once_needs_no_task(
    gateway: Gateway, lane: Lane, plane: DataPlane
) -> None:
    async def run() -> Any:
        return ask(gateway, plane)

    found = asyncio.run(run())

    assert isinstance(found, Reply)
    assert found.status == 200
    assert gateway.meters().in_flight == 0


def test_a_batch_is_with_its_worker_before_the_loop_hears_of_the_request(
    gateway: Gateway, lane: Lane, plane: DataPlane
) -> None:
    async def run() -> Reply:
        lane.answer = asyncio.get_running_loop().create_future()
        found = ask(gateway, plane)
        assert lane.asked == 1
        assert gateway.meters().in_flight == 1
        lane.answer.set_result(None)
        answered: Reply = await found
        return answered

    assert asyncio.run(run()).status == 200
    assert gateway.meters().in_flight == 0


def test_who_hangs_up_before_his_task_began_frees_what_he_held(
    gateway: Gateway, lane: Lane, plane: DataPlane
) -> None:
    async def run() -> None:
        lane.answer = asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(ask(gateway, plane))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    reading = gateway.meters()
    assert reading.in_flight == 0
    assert gateway.active is not None
    assert gateway.active.endpoints["delay"].resident.pins == 0
    (endpoint,) = reading.endpoints
    assert [(one.status, one.code) for one in endpoint.refusals] == [(499, "cancelled")]
