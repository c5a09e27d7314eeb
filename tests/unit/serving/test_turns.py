"""The loop's time among endpoints: one is flooded, and the other's requests do not wait for that."""

from __future__ import annotations

import asyncio
import inspect
import json
import statistics
from collections.abc import Iterator

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.errors import Shed
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.turns import TURN_NS, Turn, Turns
from taut.testing.serving import DataPlane, open_gateway

COST_NS = 100_000


class Loop:
    """Requests of 100 µs each to two endpoints of one loop, by a clock of their own; `order` says who was answered."""

    def __init__(self) -> None:
        self.shared = turns = Turns()
        self.turns = {"flooded": Turn(turns), "calm": Turn(turns)}
        self.now_ns = 0
        self.order: list[str] = []
        self.shed = 0

    async def ask(self, name: str) -> None:
        turn = self.turns[name]
        if self.shared.must_wait(turn, self.now_ns):
            try:
                await turn.come()
            except Shed:
                self.shed += 1
                return
        began_ns, self.now_ns = self.now_ns, self.now_ns + COST_NS
        if began_ns < self.shared.company_until_ns:
            turn.spend(began_ns, self.now_ns)
        self.order.append(name)


def between(order: list[str]) -> list[int]:
    """Return how many of the flooded endpoint's requests were answered before each of the calm one's."""
    text = "".join("." if name == "flooded" else "|" for name in order)
    return [len(part) for part in text.split("|")[:-1]]


def test_a_neighbours_flood_costs_one_turn_and_not_the_whole_flood() -> None:
    loop = Loop()

    async def run() -> None:
        await loop.ask("calm")
        flood = [asyncio.create_task(loop.ask("flooded")) for _ in range(200)]
        for _ in range(5):
            await asyncio.sleep(0)
            await loop.ask("calm")
        await asyncio.gather(*flood)

    asyncio.run(run())

    assert loop.order.count("flooded") == 200
    assert (
        max(between(loop.order)) <= 2 * TURN_NS // COST_NS
    )  # a turn, and what it may have left of the one before


def test_who_is_alone_never_waits() -> None:
    loop = Loop()

    async def run() -> None:
        for _ in range(200):
            asking = loop.ask("flooded")
            with pytest.raises(StopIteration):
                asking.send(None)

    asyncio.run(run())

    assert len(loop.order) == 200


def test_two_floods_get_equal_parts() -> None:
    loop = Loop()

    async def run() -> None:
        await loop.ask("calm")
        flood = [asyncio.create_task(loop.ask(name)) for name in ("flooded",) * 300 + ("calm",) * 300]
        await asyncio.gather(*flood)

    asyncio.run(run())

    middle = loop.order[100:500]
    assert abs(middle.count("flooded") - middle.count("calm")) <= 60


def test_what_waits_is_bounded_and_those_who_hang_up_are_passed_over() -> None:
    loop = Loop()

    async def run() -> None:
        await loop.ask("calm")
        flood = [asyncio.create_task(loop.ask("flooded")) for _ in range(1200)]
        await asyncio.sleep(0)
        for task in flood[20:600]:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        await loop.ask("flooded")

    asyncio.run(run())

    assert loop.shed == 1200 - 1024 - 11
    assert loop.order.count("flooded") == 1200 - loop.shed - 580 + 1


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    ticks = iter(range(0, 10**15, 50_000))  # each look at the clock is 50 µs later
    with open_gateway(plane.home, SystemRandom(), counter_ns=lambda: next(ticks)) as made:
        yield made


def test_a_gateway_answers_a_calm_endpoint_at_once_in_the_midst_of_a_flood(
    plane: DataPlane, gateway: Gateway
) -> None:
    snapshot = plane.snapshot(plane.endpoint(name="flooded"), plane.endpoint(name="calm"))
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
    body = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}).encode()
    headers = [(b"authorization", b"Bearer " + plane.token().encode())]

    async def run() -> tuple[list[object], object]:
        gateway.answer("POST", "/v1/predict/calm", headers, body)
        flood = [gateway.answer("POST", "/v1/predict/flooded", headers, body) for _ in range(60)]
        calm = gateway.answer("POST", "/v1/predict/calm", headers, body)
        return [await one if inspect.isawaitable(one) else one for one in flood], calm

    flood, calm = asyncio.run(run())

    assert isinstance(calm, Reply)
    assert calm.status == 200
    assert {one.status for one in flood if isinstance(one, Reply)} == {200}
    assert gateway.outcomes.answers == 62
    guarded = [int(dict(one.header_list())[b"taut-guard-us"]) for one in flood if isinstance(one, Reply)]
    # of the later half all waited; a machine that stands still for a moment adds to a few
    assert statistics.median(guarded[30:]) < 1000, "waiting for a turn is no guarding"
