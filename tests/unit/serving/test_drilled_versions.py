"""A version with a planted fault fails or is late as the drill says, never more often than it may, and holds nobody else up."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.scorer import Scorer
from taut.serving.snapshot import PlantedFault
from taut.testing.serving import DataPlane, open_gateway, with_fields


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, fault: PlantedFault | None) -> None:
    endpoint = plane.endpoint()
    endpoint = with_fields(endpoint, live=with_fields(endpoint.live, fault=fault))
    gateway.install(compile_snapshot(plane.snapshot(endpoint), home=plane.home, before=gateway.active))


def begin(gateway: Gateway, plane: DataPlane, endpoint: str = "delay") -> Any:
    """Return the answer, or what waits for it."""
    lines = [
        (b"authorization", b"Bearer " + plane.token("ana", jti="ana").encode()),
        (b"taut-deadline-ms", b"30000"),
    ]
    body = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}).encode()
    return gateway.answer("POST", f"/v1/predict/{endpoint}", lines, body)


def ask(gateway: Gateway, plane: DataPlane) -> tuple[int, bool]:
    """Return the status, and whether the answer was there at once."""

    async def run() -> tuple[Reply, bool]:
        found = begin(gateway, plane)
        return (await found, False) if inspect.isawaitable(found) else (found, True)

    reply, at_once = asyncio.run(run())
    return reply.status, at_once


def test_the_share_of_answers_that_a_drill_names_fails_evenly_and_no_more_than_it_may(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, PlantedFault(failing=0.5, most=3))

    assert [ask(gateway, plane)[0] for _ in range(10)] == [200, 503, 200, 503, 200, 503, 200, 200, 200, 200]


def test_further_snapshots_do_not_let_a_fault_strike_more_often(gateway: Gateway, plane: DataPlane) -> None:
    fault = PlantedFault(failing=1.0, most=3)
    answered = []
    for _ in range(4):
        install(gateway, plane, fault)
        answered += [ask(gateway, plane)[0] for _ in range(2)]

    assert answered == [503] * 3 + [200] * 5


def test_what_is_late_on_purpose_is_answered_all_the_same(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, PlantedFault(slow_ms=1.0))
    assert ask(gateway, plane) == (200, False)


def test_a_version_that_is_late_on_purpose_holds_no_other_endpoint_up(
    gateway: Gateway, plane: DataPlane
) -> None:
    """Both are scored beside the loop, by the one thread that there is."""
    both = [
        with_fields(one, live=with_fields(one.live, fault=PlantedFault(slow_ms=slow_ms)))
        for one, slow_ms in ((plane.endpoint(), 20_000.0), (plane.endpoint(name="other"), 1.0))
    ]
    beside = plane.snapshot(*both)
    gateway.install(compile_snapshot(beside, home=plane.home, before=None))

    async def run() -> tuple[int, bool]:
        first: Any = asyncio.ensure_future(begin(gateway, plane, "delay"))
        other = await asyncio.ensure_future(begin(gateway, plane, "other"))
        waits = not first.done()
        first.cancel()
        return other.status, waits

    assert asyncio.run(run()) == (200, True)


def test_without_a_fault_nothing_of_it_is_there(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, PlantedFault(failing=1.0))
    assert ask(gateway, plane)[0] == 503
    install(gateway, plane, None)

    assert ask(gateway, plane) == (200, True)
    assert gateway.active is not None
    assert type(gateway.active.endpoints["delay"].live) is Scorer
