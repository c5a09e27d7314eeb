"""A request counts against what is its caller's own and what he shares; the refusal says which of it is used up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import msgspec
import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.testing.serving import DataPlane, open_gateway
from taut.trust.quota import Allowance, Budgets, Lease, Limit, Price, budget

BODY = b'{"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}'
THREE = Limit(rate_per_s=0.001, burst=3.0, level="its members together")


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *allowances: Allowance, price: Price | None = None) -> None:
    snapshot = plane.snapshot(plane.endpoint(price=price), plane.endpoint(name="price"))
    snapshot = msgspec.structs.replace(snapshot, allowances=allowances)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(gateway: Gateway, bearer: str, endpoint: str = "delay") -> Reply:
    lines = [(b"authorization", b"Bearer " + bearer.encode())]
    found = gateway.answer("POST", f"/v1/predict/{endpoint}", lines, BODY)
    return (
        found if isinstance(found, Reply) else asyncio.run(found)
    )  # a moment's stall, and one endpoint waits its turn


def test_a_team_shares_what_it_has_over_all_endpoints_and_others_have_their_own(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, Allowance(name="team", members=("ana", "ben"), limits=(THREE,)))
    ana, ben, cem = plane.token(), plane.token("ben", jti="t2"), plane.token("cem", jti="t3")

    assert [ask(gateway, ana).status, ask(gateway, ben, "price").status, ask(gateway, ana).status] == [
        200
    ] * 3
    refused = ask(gateway, ben)
    assert [refused.status, ask(gateway, cem).status] == [429, 200]
    error = json.loads(refused.body)["error"]
    assert error["quota"] == {"name": "team", "level": "its members together", "kind": "requests"}
    assert "that 'team' gives its members together is used up" in error["message"]
    headers = dict(refused.header_list())
    assert headers[b"ratelimit-policy"] == b'"team";q=3;w=3000'
    assert headers[b"ratelimit"].startswith(b'"team";r=0;t=')
    assert int(headers[b"retry-after"]) >= 900


def test_roles_and_endpoints_say_whom_an_allowance_is_for(gateway: Gateway, plane: DataPlane) -> None:
    each = Allowance(
        name="each", each=True, members=("role:predictor",), endpoints=("price",), limits=(THREE,)
    )
    install(gateway, plane, each)
    ana, ben = plane.token(), plane.token("ben", jti="t2")

    assert [ask(gateway, ana, "price").status for _ in range(4)] == [200, 200, 200, 429]
    assert [ask(gateway, ben, "price").status, ask(gateway, ana).status] == [200, 200]


def test_the_time_of_models_is_charged_to_every_level(gateway: Gateway, plane: DataPlane) -> None:
    nothing = Limit(rate_per_s=1e-6, burst=1e-9, kind="model_ms", level="all callers together")
    install(gateway, plane, Allowance(name="all", limits=(nothing,)))

    assert ask(gateway, plane.token()).status == 200
    refused = ask(gateway, plane.token("ben", jti="t2"), "price")

    assert (refused.status, json.loads(refused.body)["error"]["quota"]["kind"]) == (429, "model_ms")


def test_a_new_snapshot_with_the_same_allowance_does_not_refill_it(
    gateway: Gateway, plane: DataPlane
) -> None:
    team = Allowance(name="team", limits=(THREE,))
    for _ in range(3):
        install(gateway, plane, team)
        assert ask(gateway, plane.token()).status == 200
    install(gateway, plane, team)
    assert ask(gateway, plane.token()).status == 429


def test_dollars_are_counted_by_price_and_control_says_how_many_are_left(
    gateway: Gateway, plane: DataPlane
) -> None:
    dollars = budget(1000.0, 86_400.0, kind="usd_micros", level="each caller")
    day = Allowance(name="day", each=True, limits=(dollars,))
    install(gateway, plane, day, price=Price(request_micros=8.0))
    ana = plane.token()

    first = [ask(gateway, ana).status for _ in range(3)]  # a hundredth, before control speaks
    assert first == [200, 200, 429]
    budgets = Budgets(grantor="control")
    budgets.expect(1, day.named())
    claim = gateway.quota.claim(gateway.monotonic_s())
    assert [(one.who, one.spent, one.pressed) for one in claim.spendings] == [("ana", 16.0, True)]
    allowed = budgets.hear("gateway", claim, 0.0)
    gateway.quota.hear(
        Lease(
            grantor="control", number=1, asked_s=claim.asked_s, ttl_s=60.0, grace_s=60.0, share=10**6, safe=0, credits=allowed,
        ),
        gateway.monotonic_s(),
    )  # fmt: skip

    assert [ask(gateway, ana).status for _ in range(4)] == [200, 200, 200, 429]  # a fiftieth more
    refused = ask(gateway, ana)
    error = json.loads(refused.body)["error"]
    assert (
        "the budget of 1,000 micro-dollars in any 24 hours that 'day' gives each caller" in error["message"]
    )
    assert dict(refused.header_list())[b"ratelimit-policy"] == b'"day";q=1000;w=86400;qu="usd_micros"'
    assert [ask(gateway, ana, "price").status] == [429]  # whose answers cost nothing, and who owes pays first
