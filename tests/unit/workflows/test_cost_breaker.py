"""The breaker from counters to containment: it opens at who amplifies, lets him through slower, and closes by itself."""

from __future__ import annotations

from taut.serving.snapshot import Beat, GatewayState
from taut.testing.world import ManualClock
from taut.trust.findings import Sighting
from taut.workflows.alarms import CostSentry


def state(costs: dict[str, tuple[int, int]], *, gateway: str = "gateway-1", pid: int = 1) -> GatewayState:
    beat = Beat(
        gateway=gateway, epoch=1, ready=True, answers=0, refusals=0,
        costs={who: {"delay": cost} for who, cost in costs.items()},
    )  # fmt: skip
    return GatewayState(gateway=gateway, pid=pid, serving=1, beat=beat)


class Control:
    """A sentry, its clock, and the counters of one gateway."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.sentry = CostSentry(clock=self.clock)
        self.totals: dict[str, tuple[int, int]] = {"?": (0, 0)}
        self.sentry.look([state(self.totals)])

    def look(self, who: str, requests: int, micros: int) -> tuple[Sighting, ...]:
        scored, spent = self.totals.get(who, (0, 0))
        self.totals[who] = (scored + requests, spent + requests * micros)
        self.clock.advance(2.0)
        return self.sentry.look([state(self.totals), state({}, gateway="gateway-2")])


def test_counters_of_gateways_become_costs_and_who_amplifies_is_seen_until_he_is_as_before() -> None:
    control = Control()
    for _ in range(40):
        assert control.look("ana", 10, 500) == ()
    assert control.look("?", 1000, 10**6) == ()  # those for whom there is no room are nobody

    asked = 0
    while not (found := control.look("ana", 10, 20_000)):
        asked += 10
        assert asked <= 40
    assert [(one.kind, one.principal, one.resource) for one in found] == [
        ("cost.amplification", "ana", "endpoint:delay")
    ]
    assert found[0].summary.startswith("ana: a request took 20 ms of models, and at most 1.5 ms is usual")
    control.totals["ana"] = (0, 0)  # forgotten by the gateway, and begun anew
    looks = 0
    while control.look("ana", 5, 500):
        looks += 1
        assert looks < 20
    assert looks >= 5


def test_a_gateway_that_was_not_heard_before_says_nothing_of_what_was() -> None:
    control = Control()
    for _ in range(40):
        control.look("ana", 10, 500)
    old = state({"ana": (10_000, 10**9)}, gateway="gateway-3", pid=7)
    for _ in range(3):
        control.clock.advance(2.0)
        assert control.sentry.look([state(control.totals), old]) == ()
