"""Outcomes at the gateway: who may tell of them, what is refused before it is kept, and how many one caller may send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import Exhausted
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.feedback import Allowance
from taut.serving.predictions import OUTCOMES, TAKEN, PredictionReader
from taut.testing.serving import DataPlane, open_gateway

REQUEST = "req_" + 26 * "0"


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        made.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        yield made


def tell(
    gateway: Gateway,
    plane: DataPlane,
    body: Any,
    *,
    who: str = "ana",
    role: str = "predictor",
    method: str = "POST",
) -> Reply:
    lines = (
        [(b"authorization", b"Bearer " + plane.token(who, roles=(role,), jti=who + role).encode())]
        if who
        else []
    )
    found = gateway.answer(
        method, "/v1/feedback", lines, body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    assert isinstance(found, Reply)
    return found


def told(label: Any = 1, count: int = 1, **more: Any) -> Any:
    return {"endpoint": "delay", "outcomes": [{"request_id": REQUEST, "label": label, **more}] * count}


def test_what_was_taken_lies_in_the_log_before_it_is_acknowledged(gateway: Gateway, plane: DataPlane) -> None:
    reply = tell(gateway, plane, told(row=3))
    assert (reply.status, json.loads(reply.body)["taken"]) == (202, 1)
    (record,) = PredictionReader(plane.home / "log" / "predictions").records()
    assert (record.status, record.principal, record.head.columns) == (TAKEN, "ana", OUTCOMES)
    assert record.requests() == [{"request_id": REQUEST, "row": 3, "label": 1, "entity": {}, "at": ""}]
    assert record.request_id == json.loads(reply.body)["request_id"]


REFUSED: list[tuple[Any, int, str]] = [
    (b"{", 400, "not JSON"),
    ({"endpoint": "delay", "outcomes": []}, 422, "length >= 1"),
    ({"endpoint": "delay", "outcomes": [{"label": 1}]}, 422, "name the request_id"),
    (told(entity={"x0": 1.0}, at="2026-01-01T00:00:00Z"), 422, "name the request_id"),
    ({"endpoint": "delay", "outcomes": [{"entity": {"x0": 1.0}, "label": 1}]}, 422, "time `at`"),
    (
        {"endpoint": "delay", "outcomes": [{"entity": {"no": 1}, "at": "x", "label": 1}]},
        422,
        "request columns",
    ),
    (told("perhaps"), 422, "wanted one of"),
    (told(row=-1), 422, ">= 0"),
    (told(colour="red"), 422, "colour"),
    (told(count=10_001), 422, "length <= 10000"),
    ({"endpoint": "nowhere", "outcomes": [{"request_id": REQUEST, "label": 1}]}, 404, "not served"),
]


def test_what_could_never_be_joined_is_refused_and_leaves_nothing(gateway: Gateway, plane: DataPlane) -> None:
    for body, status, said in REFUSED:
        reply = tell(gateway, plane, body)
        assert (reply.status, said in json.loads(reply.body)["error"]["message"]) == (status, True), (
            reply.body
        )
    assert list(PredictionReader(plane.home / "log" / "predictions").records()) == []


def test_who_is_nobody_or_may_not_is_refused(gateway: Gateway, plane: DataPlane) -> None:
    assert tell(gateway, plane, told(), who="").status == 401
    assert tell(gateway, plane, told(), who="ben", role="device").status == 403
    assert tell(gateway, plane, told(), method="GET").status == 405


def test_a_flood_of_one_caller_is_turned_away_and_does_not_cost_the_others(
    gateway: Gateway, plane: DataPlane
) -> None:
    many = told(count=10_000)
    assert [tell(gateway, plane, many).status for _ in range(3)] == [202, 202, 429]
    assert tell(gateway, plane, told(), who="ben").status == 202


def test_what_a_caller_may_tell_comes_back_with_time_and_callers_are_bounded() -> None:
    allowance = Allowance()
    allowance.spend("ana", 20_000, 0.0)
    with pytest.raises(Exhausted) as refused:
        allowance.spend("ana", 500, 0.25)
    assert refused.value.retry_after_s == pytest.approx(0.25)
    allowance.spend("ana", 500, 0.5)
    for number in range(2000):
        allowance.spend(f"caller-{number}", 1, 1.0)
    assert len(allowance) == 1024
