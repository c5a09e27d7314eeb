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
from taut.testing.serving import DataPlane, now_us, open_gateway
from taut.trust.containment import Contained

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
HOUR_US = 3_600_000_000


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *contained: Contained, gateways: int = 1) -> None:
    snapshot = plane.snapshot(plane.endpoint(), plane.endpoint(name="price"))
    snapshot = msgspec.structs.replace(snapshot, contained=contained, gateways=gateways)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def held(action: str, who: str, **more: Any) -> Contained:
    fields = {"id": "hold_1", "principal": who, "action": action, "until_us": now_us() + HOUR_US}
    return Contained(**{**fields, **more})


def ask(gateway: Gateway, bearer: str, endpoint: str = "delay") -> tuple[int, str]:
    """Return the status and the error's code."""

    async def run() -> Reply:
        lines = [(b"authorization", b"Bearer " + bearer.encode())]
        body = json.dumps({"instances": [INSTANCE]}).encode()
        found = gateway.answer("POST", f"/v1/predict/{endpoint}", lines, body)
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    return reply.status, json.loads(reply.body).get("error", {}).get("code", "")


def test_requests_are_counted_by_caller_and_endpoint_over_epochs(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane)
    ana, ben = plane.token(), plane.token("ben", jti="t2")
    for bearer, endpoint in [(ana, "delay"), (ana, "delay"), (ana, "price"), (ben, "delay")]:
        assert ask(gateway, bearer, endpoint)[0] == 200
    install(gateway, plane)
    assert ask(gateway, ana) == (200, "")
    assert gateway.callers.reading() == {"ana": {"delay": 3, "price": 1}, "ben": {"delay": 1}}

    install(gateway, plane)  # ben did not ask since the one before
    assert gateway.callers.reading() == {"ana": {"delay": 3}}
    assert ask(gateway, plane.token("eve", roles=("auditor",), jti="t3"))[0] == 403
    assert "eve" not in gateway.callers.reading()


def test_what_models_took_is_counted_beside_the_requests_and_refusals_cost_nothing(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    assert [ask(gateway, plane.token())[0] for _ in range(3)] == [200] * 3
    assert ask(gateway, plane.token("eve", roles=("auditor",), jti="t3"))[0] == 403

    costs = gateway.callers.costs()
    assert list(costs) == ["ana"]
    scored, micros = costs["ana"]["delay"]
    assert scored == 3
    assert micros > 0


def test_callers_beyond_the_bound_are_one_caller() -> None:
    callers = Callers(most=2)
    for name in ("a", "b", "c", "d", "a"):
        callers.tally(("delay", name)).asked += 1
    assert callers.reading() == {"a": {"delay": 2}, "b": {"delay": 1}, OTHERS: {"delay": 2}}


def test_a_throttle_holds_one_caller_everywhere_and_what_is_refused_counts(
    gateway: Gateway, plane: DataPlane
) -> None:
    one = held("throttle", "ana", per_s=0.001)
    install(gateway, plane, one)
    ana, ben = plane.token(), plane.token("ben", jti="t2")

    assert ask(gateway, ana) == (200, "")
    assert ask(gateway, ana, "price") == (429, "exhausted")  # one bucket for all endpoints
    assert ask(gateway, ben) == (200, "")
    assert gateway.callers.reading()["ana"] == {"delay": 1, "price": 1}
    install(gateway, plane, one)
    assert ask(gateway, ana) == (429, "exhausted")  # a new snapshot fills no bucket
    install(gateway, plane)
    assert ask(gateway, ana) == (200, "")


def test_a_quarantine_leaves_what_is_named_and_a_revocation_nothing(
    gateway: Gateway, plane: DataPlane
) -> None:
    ana = plane.token()
    install(gateway, plane, held("quarantine", "ana", allowed=("price",)))
    assert (ask(gateway, ana), ask(gateway, ana, "price")) == ((403, "denied"), (200, ""))
    install(gateway, plane, held("revoke", "ana"))
    assert (ask(gateway, ana), ask(gateway, ana, "price")) == ((403, "denied"), (403, "denied"))


def test_a_step_up_refuses_keys_and_takes_tokens(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, held("step_up", "robot"), held("step_up", "ana"))
    assert ask(gateway, plane.token()) == (200, "")
    assert ask(gateway, plane.api_key)[1] == "step_up"


def test_a_containment_ends_by_itself_with_no_word_from_control(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, held("revoke", "ana", until_us=now_us() - 1))
    assert ask(gateway, plane.token()) == (200, "")
