"""A gateway counts who asks, and holds back whoever is contained: at the request that finds it in force."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.callers import OTHERS, Callers
from taut.serving.snapshot import EndpointConfig
from taut.testing.serving import DataPlane, now_us, open_gateway
from taut.trust.containment import Contained

HOUR_US = 3_600_000_000


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *contained: Contained, gateways: int = 1) -> None:
    snapshot = plane.snapshot(EndpointConfig(name="delay", live=plane.live))
    snapshot = msgspec.structs.replace(snapshot, contained=contained, gateways=gateways)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def held(action: str, who: str, **more: Any) -> Contained:
    fields = {"id": "hold_1", "principal": who, "action": action, "until_us": now_us() + HOUR_US}
    return Contained(**{**fields, **more})


def ask(gateway: Gateway, bearer: str) -> tuple[int, dict[bytes, bytes], Any]:
    async def run() -> Reply:
        body = json.dumps({"instances": [{"origin": "JFK", "distance": 100.0}]}).encode()
        found = gateway.answer("POST", "/v1/predict/delay", [(b"authorization", b"Bearer " + bearer.encode())], body)
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    return reply.status, {}, json.loads(reply.body)
