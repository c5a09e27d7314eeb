"""What a gateway remembers of a caller holds no longer than what it was found from, and hides nothing that he asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.testing.serving import DataPlane, now_us, open_gateway
from taut.trust.quota import Limit

BODY = b'{"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}'


class Clock:
    """The wall clock of a gateway, moved by hand."""

    def __init__(self) -> None:
        self.us = now_us()

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(plane: DataPlane, clock: Clock) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom(), clock_us=clock) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, **more: Any) -> None:
    snapshot = plane.snapshot(plane.endpoint(**more), max_age_s=86_400.0)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(gateway: Gateway, bearer: str, **headers: str) -> tuple[int, str]:
    """Return the status, and the error's code."""
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    sent.append((b"authorization", f"Bearer {bearer}".encode()))
    found = gateway.answer("POST", "/v1/predict/delay", sent, BODY)
    assert isinstance(found, Reply)
    document = json.loads(found.body)
    return found.status, document.get("error", {}).get("code", "")


def test_who_was_let_in_before_is_refused_when_his_bearer_ends(
    gateway: Gateway, plane: DataPlane, clock: Clock
) -> None:
    install(gateway, plane)
    expires_us = (clock.us // 10**6 + 60) * 10**6
    token = plane.token(now_s=clock.us // 10**6, ttl_s=60)

    assert [ask(gateway, token)[0] for _ in range(3)] == [200] * 3
    clock.us = expires_us - 1
    assert ask(gateway, token)[0] == 200
    clock.us = expires_us
    assert ask(gateway, token) == (401, "unauthenticated")


def test_who_was_let_in_before_is_refused_when_the_snapshot_is_too_old(
    gateway: Gateway, plane: DataPlane, clock: Clock
) -> None:
    install(gateway, plane, max_age_s=60.0)
    assert gateway.active is not None
    stale_us = gateway.active.endpoints["delay"].stale_us

    assert [ask(gateway, plane.api_key)[0] for _ in range(3)] == [200] * 3
    clock.us = stale_us
    assert ask(gateway, plane.api_key)[0] == 200
    clock.us = stale_us + 1
    assert ask(gateway, plane.api_key) == (503, "unavailable")


def test_who_was_let_in_before_pays_for_each_request(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, quota=Limit(rate_per_s=0.001, burst=3))

    found = [ask(gateway, plane.api_key) for _ in range(4)]

    assert found == [(200, "")] * 3 + [(429, "exhausted")]


def test_what_was_decided_is_forgotten_with_its_snapshot(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane)
    token = plane.token(jti="t9")
    assert [ask(gateway, token)[0] for _ in range(2)] == [200] * 2

    snapshot = plane.snapshot(plane.endpoint(), identity=plane.identity(revoked=["t9"]))
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))

    assert ask(gateway, token) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("taut-deadline-ms", "soon", 400), ("taut-priority", "11", 400), ("taut-subject", "\x7f", 400),
        ("content-encoding", "br", 415), ("inference-header-content-length", "3", 400),
    ],
)  # fmt: skip
def test_what_a_request_asks_for_is_looked_at_whoever_sends_it(
    gateway: Gateway, plane: DataPlane, name: str, value: str, status: int
) -> None:
    install(gateway, plane)
    assert [ask(gateway, plane.api_key)[0] for _ in range(2)] == [200] * 2

    assert ask(gateway, plane.api_key, **{name: value})[0] == status
