"""From what gateways count to standings and alerts: over restarts of gateways and of control, nothing twice and nothing lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taut.lifecycle.monitoring import ColumnFigures, Figures, Quality, Tolerance
from taut.lifecycle.objectives import Kept, Standing, metadata
from taut.project.manifest import EndpointSpec, Manifest, SLOSpec
from taut.serving.meters import LAYOUT, TIME_NS, EndpointMeter, MeterReading, encode_reading
from taut.serving.snapshot import Beat, GatewayState
from taut.testing.records import memory_records
from taut.testing.world import ManualClock
from taut.trust.findings import Sighting
from taut.workflows.freezes import freezes, unfrozen
from taut.workflows.objectives import BUDGET, BURN, Objectives
from taut.workflows.objectives.counting import late

MS = 1_000_000
SLO = SLOSpec(
    availability=0.99,
    latency_p95_ms=20,
    latency_p99_ms=100,
    live=0.9,
    quality=0.9,
    drift=0.9,
    freshness="1d",
    freeze=True,
)


class Gateway:
    """A gateway's process whose requests a test makes up."""

    def __init__(self, pid: int = 1) -> None:
        self.pid = pid
        self.meter = EndpointMeter()

    def answer(self, count: int, *, took_ms: float = 1.0) -> None:
        for _ in range(count):
            self.meter.answered(1_000, 1_000, int(took_ms * MS))

    def fail(self, count: int, status: int = 503) -> None:
        for _ in range(count):
            self.meter.refusals.add(status, "unavailable")

    def state(self) -> GatewayState:
        reading = MeterReading(
            layout=LAYOUT, started_us=self.pid, up_us=1, in_flight=0, slots=9,
            endpoints=(self.meter.reading("delay", "delay@1"),),
        )  # fmt: skip
        beat = Beat(
            gateway="gateway-0", epoch=1, ready=True, answers=0, refusals=0, meters=encode_reading(reading)
        )
        return GatewayState(gateway="gateway-0", pid=self.pid, serving=1, beat=beat)


class Register:
    """Findings that only remember what is seen now."""

    def __init__(self) -> None:
        self.seen: list[Sighting] = []
        self.asked = 0

    def observe(self, _kinds: Any, sightings: Any) -> None:
        self.asked += 1
        self.seen = list(sightings)


class Control:
    """Objectives of one endpoint, on records that outlive them."""

    def __init__(self, slo: SLOSpec = SLO) -> None:
        self.clock = ManualClock()
        self.records = memory_records(metadata)
        self.findings = Register()
        manifest = Manifest(endpoints=(EndpointSpec(name="delay", model="delay", slo=slo),))
        self.rooms: Any = SimpleNamespace(
            clock=self.clock, plans=SimpleNamespace(current=lambda: manifest),
            watches=SimpleNamespace(standings=lambda _rooms: self.objectives.standings()),
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        self.objectives = Objectives(self.rooms, self.findings, Kept(self.records, self.clock))  # type: ignore[arg-type]  # a fake

    def look(self, *gateways: Gateway, said: Any = None, after_s: float = 5.0) -> dict[str, Standing]:
        self.clock.advance(after_s)
        found = self.objectives.look([one.state() for one in gateways], said or {})
        return {one.objective.name: one for one in found}


def counted(standing: Standing) -> tuple[int, int]:
    return standing.budget.bad, standing.budget.events


def test_answers_failures_slow_ones_and_stand_ins_are_counted_and_a_callers_faults_are_not() -> None:
    control, gateway = Control(), Gateway()
    gateway.answer(90)
    gateway.answer(10, took_ms=50.0)
    gateway.meter.fallbacks += 4
    gateway.fail(5)
    gateway.fail(50, status=422)
    gateway.fail(7, status=499)
    found = control.look(gateway)

    assert counted(found["availability"]) == (5, 105)
    assert counted(found["latency"]) == (10, 100)
    assert counted(found["latency_p99"]) == (0, 100)
    assert counted(found["live"]) == (4, 100)
    assert counted(found["quality"]) == counted(found["freshness"]) == (0, 0)
    assert counted(control.look(gateway)["availability"]) == (5, 105)  # the same report again
    gateway.answer(1)
    assert counted(control.look(gateway, Gateway(pid=2))["availability"]) == (5, 106)
    assert control.objectives.counted["delay", "availability"] == (5, 106)


def test_a_control_that_dies_counts_what_came_since_and_nothing_twice() -> None:
    control, gateway = Control(), Gateway()
    gateway.answer(100)
    control.look(gateway)
    control.look(gateway, after_s=60.0)  # is kept
    gateway.answer(20)
    gateway.fail(2)
    control.look(gateway)  # is not, when control dies
    control.start()
    gateway.answer(5)
    assert counted(control.look(gateway)["availability"]) == (2, 127)
    control.objectives.close()

    control.start()
    assert counted(control.look(Gateway(pid=9))["availability"]) == (2, 127)  # the gateway died meanwhile
    assert counted(control.objectives.standings()[0]) == (2, 127)


def test_what_gateways_counted_while_control_was_away_for_hours_is_no_alarm_of_this_minute() -> None:
    control, gateway = Control(), Gateway()
    gateway.answer(10_000)
    control.look(gateway)
    control.objectives.close()
    gateway.fail(100)
    gateway.answer(10_000)
    control.start()
    then = control.look(gateway, after_s=10 * 3600.0)["availability"]

    assert counted(then) == (100, 20_100)
    assert then.burns[0].events < 1_500
    assert then.worst is None


MOVED = ColumnFigures(column="items", source="request", state="drifted", shift=None, faults=(0.0, 0.0, 0.0))


def figures(
    labelled: int,
    wrong: int,
    *,
    stale_s: float | None = None,
    last_s: float | None = None,
    drifted: bool = False,
) -> Any:
    quality = Quality(usual=0.9, labelled=labelled, right=1 - wrong / labelled if labelled else None)
    return {
        ("delay", "delay@1"): Figures(
            version="delay@1", rows=1, window_rows=1, window_s=1.0, columns=(MOVED,) if drifted else (), quality=quality, tolerance=Tolerance(),
            stale_s=stale_s, last_s=last_s,
        )
    }  # fmt: skip


def test_wrong_answers_count_as_bad_and_a_correction_takes_one_back() -> None:
    control = Control()
    assert counted(control.look(said=figures(50, 10))["quality"]) == (10, 50)
    assert counted(control.look(said=figures(60, 9))["quality"]) == (9, 60)
    assert counted(control.look(said=figures(5, 1))["quality"]) == (10, 65)  # a watch that began anew
    assert control.objectives.counted["delay", "quality"] == (
        11,
        65,
    )  # for Prometheus, which wants no way back


def test_each_minute_says_once_whether_the_model_is_fresh_and_its_traffic_as_it_learned() -> None:
    control = Control()
    now_s = control.clock.now().timestamp()
    fresh, stale = (
        figures(0, 0, stale_s=age_s, last_s=now_s, drifted=age_s > 86_400) for age_s in (3600.0, 90_000.0)
    )
    for _ in range(30):
        found = control.look(said=fresh, after_s=20.0)
    assert counted(found["freshness"]) == counted(found["drift"])
    assert counted(found["freshness"]) in {(0, 10), (0, 11)}
    found = control.look(said=stale, after_s=60.0)
    assert (found["freshness"].budget.bad, found["drift"].budget.bad) == (1, 1)
    unknown = control.look(said=figures(0, 0), after_s=60.0)
    assert (
        unknown["freshness"].budget.events == found["freshness"].budget.events
    )  # nobody knows what it learned from
    assert unknown["drift"].budget.events == found["drift"].budget.events + 1


def test_an_outage_is_one_alert_that_lapses_and_a_spent_budget_freezes_releases_until_a_person_says_why_not() -> (
    None
):
    control, gateway = Control(), Gateway()
    gateway.answer(200)
    control.look(gateway)
    assert (control.findings.seen, list(freezes(control.rooms, "delay"))) == ([], [])
    gateway.fail(60)
    control.look(gateway)
    burn, spent = control.findings.seen

    assert (burn.kind, burn.group, burn.resource, burn.severity) == (
        BURN,
        "availability",
        "endpoint:delay",
        "critical",
    )
    assert burn.summary == (
        "the budget of availability at delay burns 23.1 times as fast as it may: 60 of 260 events of the last hour were bad, where "
        "0.01 of them may be (99% of requests answered); 0% of the budget is left"
    )
    assert (spent.kind, spent.severity, spent.evidence["freezes"]) == (BUDGET, "warning", True)
    (why,) = freezes(control.rooms, "delay")
    assert why == "the budget of availability is spent (60 of 260 events of the last 28 days were bad)"
    assert list(freezes(control.rooms, "other")) == []
    assert unfrozen(control.rooms, "delay", "").outcome == "failed"
    said = unfrozen(control.rooms, "delay", "it mends the outage")
    assert (said.outcome, said.observed) == ("passed", why)
    assert said.message == f"{why}; all the same: it mends the outage"

    for _ in range(8):
        gateway.answer(2_000)
        control.look(gateway, after_s=3600.0)
    assert control.findings.seen == []
    asked = control.findings.asked
    control.look(gateway)
    assert control.findings.asked == asked  # a register of which nothing is open is left alone


@pytest.mark.parametrize(("limit_ms", "wanted"), [(20, 3.0), (25, 2.5), (30, 2.0), (0.0001, 4.0), (1e6, 0.0)])
def test_a_limit_within_a_bucket_takes_a_part_of_it(limit_ms: float, wanted: float) -> None:
    times = [0] * (len(TIME_NS) + 1)
    times[TIME_NS.index(20 * MS)] = times[TIME_NS.index(30 * MS)] = 1
    times[TIME_NS.index(50 * MS)] = 2
    assert late(times, limit_ms) == pytest.approx(wanted)


def test_parts_of_events_add_up() -> None:
    control, gateway = Control(SLOSpec(latency_p95_ms=25)), Gateway()
    for _ in range(10):
        gateway.answer(1, took_ms=22.0)
        control.look(gateway)
    assert counted(control.objectives.standings()[0]) == (5, 10)
