"""The door before a gateway: nothing is served without leave, whoever asks."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Admitted, Gateway, Leave, Reply, compile_snapshot
from taut.serving.gateway.probing import ask as ask_over_http
from taut.testing.serving import DataPlane, open_gateway

ROW = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
PREDICT = "/v1/predict/{}"


class Door:
    """A gateway with an endpoint of each risk behind its door, and a clock that is set."""

    def __init__(self, gateway: Gateway, plane: DataPlane) -> None:
        risks = ("low", "medium", "high")
        endpoints = [plane.endpoint(name=risk, risk=risk) for risk in risks]
        gateway.install(compile_snapshot(plane.snapshot(*endpoints), home=plane.home, before=None))
        self.gateway, self.now_ns, self.lapses = gateway, 0, list[bool]()
        self.bearer = plane.token()
        self.admitted = Admitted(
            gateway, gateway, monotonic_ns=lambda: self.now_ns, lapsed=self.lapses.append
        )

    def ask(self, endpoint: str) -> tuple[int, Any, bytes]:
        return self.send("POST", PREDICT.format(endpoint), json.dumps({"instances": [ROW]}).encode())

    def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any, bytes]:
        lines = [(b"authorization", b"Bearer " + self.bearer.encode())]

        async def run() -> Reply:
            found = self.admitted.answer(method, path, lines, body)
            return await found if inspect.isawaitable(found) else found

        reply = asyncio.run(run())
        return reply.status, json.loads(reply.body), reply.head


@pytest.fixture
def door(plane: DataPlane) -> Iterator[Door]:
    with open_gateway(plane.home, SystemRandom()) as gateway:
        yield Door(gateway, plane)


def test_nothing_is_answered_before_there_is_leave_and_everything_until_it_is_over(door: Door) -> None:
    status, document, head = door.ask("low")
    assert (status, document["error"]["code"]) == (503, "not_admitted")
    assert b"retry-after: 1\r\n" in head

    door.admitted.leave = Leave(until_ns=100, why="")
    assert [door.ask(risk)[0] for risk in ("low", "medium", "high")] == [200, 200, 200]

    door.now_ns = 100
    assert door.ask("low")[1]["error"]["code"] == "not_admitted"


def test_what_grace_allows_goes_on_and_is_told_apart_and_high_risk_fails_closed(door: Door) -> None:
    door.admitted.leave = Leave(until_ns=100, grace_until_ns={"low": 1000, "medium": 500}, why="")
    door.now_ns = 100
    assert door.ask("high")[1]["error"]["code"] == "not_admitted"
    assert (door.lapses, door.admitted.degraded) == ([], False)

    assert [door.ask(risk)[0] for risk in ("low", "medium", "low")] == [200, 200, 200]
    assert (door.lapses, door.admitted.degraded) == ([True], True)

    door.now_ns = 500
    assert [door.ask(risk)[0] for risk in ("low", "medium")] == [200, 503]
    door.admitted.leave = Leave(until_ns=1000, why="")
    assert (door.lapses, door.admitted.degraded) == ([True, False], False)
    assert door.ask("high")[0] == 200


def test_a_refusal_names_why_and_readiness_says_the_same(door: Door) -> None:
    door.admitted.leave = Leave(why="it was revoked")

    assert "it was revoked" in door.ask("low")[1]["error"]["message"]
    status, document, _ = door.send("GET", "/v2/health/ready")
    assert (status, document["reasons"]) == (503, ["not admitted: it was revoked"])
    assert door.send("GET", "/v2/health/live")[0] == 200
    assert door.gateway.reasons() == ["not admitted: it was revoked"]
    assert door.admitted.turn_away("POST", PREDICT.format("low"), []) is not None

    door.admitted.leave = Leave(until_ns=1, why="")
    assert door.send("GET", "/v2/health/ready")[0] == 200


def test_what_is_loaded_is_not_changed_without_leave(door: Door) -> None:
    status, document, _ = door.send("POST", "/v2/repository/models/low/unload", b"{}")

    assert (status, document["error"]["code"]) == (503, "not_admitted")


def test_a_probe_goes_through_http_and_the_guard(door: Door) -> None:
    async def run() -> list[int]:
        body = json.dumps({"instances": [ROW]}).encode()
        path = PREDICT.format("low")
        return [
            (await ask_over_http(door.gateway, "POST", path, body=body))[0],
            (await ask_over_http(door.gateway, "POST", path, bearer=door.bearer, body=body))[0],
            (await ask_over_http(door.admitted, "POST", path, bearer=door.bearer, body=body))[0],
        ]

    assert asyncio.run(run()) == [401, 200, 503]
