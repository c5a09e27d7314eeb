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


def ask(gateway: Gateway, plane: DataPlane) -> tuple[int, bool]:
    """Return the status, and whether the answer was there at once."""

    async def run() -> tuple[Reply, bool]:
        lines = [(b"authorization", b"Bearer " + plane.token("ana", jti="ana").encode())]
        body = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}).encode()
        found: Any = gateway.answer("POST", "/v1/predict/delay", lines, body)
        return (await found, False) if inspect.isawaitable(found) else (found, True)

    reply, at_once = asyncio.run(run())
    return reply.status, at_once


def test_the_share_of_answers_that_a_drill_names_fails_evenly_and_no_more_than_it_may(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, PlantedFault(failing=0.5, most=3))

    assert [ask(gateway, plane)[0] for _ in range(10)] == [200, 503, 200, 503, 200, 503, 200, 200, 200, 200]


def test_what_is_late_on_purpose_waits_beside_the_loop(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, PlantedFault(slow_ms=1.0))
    assert ask(gateway, plane) == (200, False)


def test_without_a_fault_nothing_of_it_is_there(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, PlantedFault(failing=1.0))
    assert ask(gateway, plane)[0] == 503
    install(gateway, plane, None)

    assert ask(gateway, plane) == (200, True)
    assert gateway.active is not None
    assert type(gateway.active.endpoints["delay"].live) is Scorer
