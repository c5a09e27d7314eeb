"""One quota over several gateway processes: what a caller gets of all of them together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from taut.serving.snapshot import Publisher
from taut.testing.serving import DataPlane, GatewayProcess
from taut.trust.quota import WHOLE, Allowance, Limit, budget

BODY = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}).encode()
LIMIT = Limit(rate_per_s=5.0, burst=12.0)
PLENTY = budget(100_000.0, 86_400.0, kind="requests", level="all callers together")
DAY = Allowance(name="day", limits=(PLENTY,))

pytestmark = pytest.mark.xdist_group("quota-over-gateways")


def until(condition: Callable[[], bool], *, within_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.01)


def shares(publisher: Publisher) -> list[int]:
    assert publisher.lender is not None
    return sorted(most for _, most, _ in publisher.lender.holders())


@pytest.fixture
def two(plane: DataPlane) -> Iterator[tuple[Publisher, list[GatewayProcess]]]:
    plane.issue(plane.endpoint(quota=LIMIT), gateways=2, allowances=(DAY,))
    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(plane.store, plane.home / "run" / "stream.sock"))
        gateways = [
            stack.enter_context(GatewayProcess(plane.home, name=f"gateway-{number}")) for number in range(2)
        ]
        for gateway in gateways:
            gateway.start()
        until(lambda: shares(publisher) == [WHOLE // 2] * 2)
        yield publisher, gateways


def spent(publisher: Publisher) -> list[float]:
    """Return what control has booked of budgets."""
    assert publisher.lender is not None
    return [state.spent for state, _ in publisher.lender.budgets()]


def asked(
    gateways: list[GatewayProcess], bearer: str, *, for_s: float
) -> tuple[int, float, list[httpx.Response]]:
    """Ask one gateway after the other without pause, until each refused; return the answers, within how long, and the refusals."""
    head = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    answers, refused, spent = 0, [], set[int]()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{one.port}", headers=head, timeout=60.0)
            )
            for one in gateways
        ]
        began_s = time.monotonic()
        while time.monotonic() - began_s < for_s or len(spent) < len(clients):
            for number, client in enumerate(clients):
                answer = client.post("/v1/predict/delay", content=BODY)
                if answer.status_code == 200:
                    answers += 1
                else:
                    refused.append(answer)
                    spent.add(number)
        return answers, time.monotonic() - began_s, refused


def test_a_caller_of_two_gateways_gets_his_quota_once_and_a_killed_one_leaves_its_share_to_the_next(
    plane: DataPlane, two: tuple[Publisher, list[GatewayProcess]]
) -> None:
    publisher, gateways = two

    answers, took_s, refused = asked(gateways, plane.token(), for_s=1.5)

    assert LIMIT.burst <= answers <= LIMIT.burst + LIMIT.rate_per_s * took_s
    assert {one.status_code for one in refused} == {429}
    error = refused[-1].json()["error"]
    assert error["code"] == "exhausted"
    assert "the quota of 5 a second on 'delay' is used up" in error["message"]
    assert int(refused[-1].headers["retry-after"]) >= 1

    until(lambda: spent(publisher) == [answers])  # what was refused cost nothing

    gateways[1].kill()
    gateways[1].start()
    until(lambda: shares(publisher) == [WHOLE // 2] * 2)

    until(lambda: asked(gateways[1:], plane.token("ben", jti="t2"), for_s=0.1)[0] > 0)
