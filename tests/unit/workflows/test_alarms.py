"""What gateways count becomes shares by caller, and a share that is strange becomes a sighting."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace
from sqlalchemy import select

from taut.serving.meters import LAYOUT, MeterReading, encode_reading
from taut.serving.snapshot import Beat, GatewayState
from taut.testing.records import memory_records
from taut.testing.world import ManualClock
from taut.trust.findings import Sighting
from taut.trust.shares import Hour, Hours, ShareWatch, metadata
from taut.trust.shares.tables import hours
from taut.workflows.alarms import CallerCounts, Sentry, scaled

MINUTE_S = 60.0


def state(callers: dict[str, int], *, gateway: str = "gateway-1", pid: int = 1) -> GatewayState:
    beat = Beat(
        gateway=gateway, epoch=1, ready=True, answers=0, refusals=0,
        callers={name: {"delay": count // 2, "price": count - count // 2} for name, count in callers.items()},
    )  # fmt: skip
    return GatewayState(gateway=gateway, pid=pid, serving=1, beat=beat)


def test_counters_become_counts_and_a_report_that_comes_twice_adds_nothing() -> None:
    counts = CallerCounts()
    counts.take([state({"app": 1000})])  # from before control heard of it
    counts.take([state({"app": 1010, "bob": 3})])
    counts.take([state({"app": 1010, "bob": 3})])
    counts.take([state({"app": 1015, "bob": 3}), state({"app": 7}, gateway="gateway-2")])

    assert counts.close_window() == {"app": 15, "bob": 3}
    counts.take([state({"app": 1015, "bob": 3}), state({"app": 9}, gateway="gateway-2")])
    assert counts.close_window() == {"app": 2}


def test_a_gateway_that_starts_anew_and_a_caller_who_was_forgotten_begin_at_nothing() -> None:
    counts = CallerCounts()
    counts.take([state({"app": 100, "bob": 9})])
    counts.take([state({"app": 50}, pid=2)])
    counts.take([state({"app": 53}, pid=2)])
    assert counts.close_window() == {"app": 3}

    counts.take([state({}, pid=2)])  # swept
    counts.take([state({"app": 4}, pid=2)])
    assert counts.close_window() == {"app": 4}


def test_a_gateway_that_reconnects_goes_on_where_it_was() -> None:
    counts = CallerCounts()
    counts.take([state({"app": 100})])
    counts.take([])
    counts.take([state({"app": 140})])
    assert counts.close_window() == {"app": 40}


class Installation:
    """A sentry, its clock, and one gateway's counters."""

    def __init__(self, hours: Hours | None = None) -> None:
        self.clock = ManualClock()
        self.sentry = Sentry(clock=self.clock, window_s=MINUTE_S, hours=hours)
        self.totals: dict[str, int] = {}
        self.look()

    def look(self, *, gateways: int = 1, incident: bool = False) -> tuple[Sighting, ...] | None:
        states = [state(self.totals), *(state({}, gateway=f"g{n}") for n in range(1, gateways))]
        return self.sentry.look(states, incident=incident)

    def minute(
        self, asked: dict[str, int], *, gateways: int = 1, incident: bool = False
    ) -> tuple[Sighting, ...]:
        for name, count in asked.items():
            self.totals[name] = self.totals.get(name, 0) + count
        self.clock.advance(MINUTE_S)
        found = self.look(gateways=gateways, incident=incident)
        assert found is not None
        return found


USUAL = {f"caller-{n}": 50 for n in range(10)}


def learned() -> Installation:
    made = Installation()
    for _ in range(61):
        assert made.minute(USUAL) == ()
    return made


def test_nothing_is_said_before_a_window_is_over() -> None:
    made = Installation()
    made.clock.advance(MINUTE_S / 2)
    assert made.look() is None


def test_a_caller_who_takes_far_more_is_seen_with_figures_a_person_can_follow() -> None:
    made = learned()
    (seen,) = made.minute({**USUAL, "caller-3": 2000})

    assert (seen.kind, seen.principal, seen.group, seen.severity) == ("share", "caller-3", "", "critical")
    assert seen.evidence["requests"] == 2000
    assert seen.evidence["of"] == 2450
    assert (seen.evidence["usual"], seen.evidence["share"]) == (0.1, round(2000 / 2450, 6))
    assert (seen.evidence["margin"], seen.evidence["fleet"]) == (3.0, "stable")
    assert seen.summary.startswith("caller-3 sent 81.6% of all requests, where 10.0% is usual")
    assert "five minutes" in seen.closes
    for _ in range(4):
        assert made.minute(USUAL)
    for _ in range(3):
        last = made.minute(USUAL)
    assert last == ()


def test_a_launch_that_multiplies_everybody_is_nothing_and_newcomers_are_one_group() -> None:
    made = learned()
    assert made.minute({name: 10 * count for name, count in USUAL.items()}) == ()

    for _ in range(60):
        made.minute({**USUAL, "new-0": 5})
    (seen,) = made.minute({**USUAL, **{f"fresh-{n}": 300 for n in range(10)}})
    assert (seen.principal, seen.group) == ("", "newcomers")


def test_the_margin_follows_what_the_fleet_does() -> None:
    made = learned()
    (seen,) = made.minute({**USUAL, "caller-3": 9000}, gateways=3)
    assert (seen.evidence["fleet"], seen.evidence["margin"]) == ("scaling", 8.0)

    made = learned()
    assert made.minute({**USUAL, "caller-3": 250}, gateways=3) == ()  # five times as often, while it scales
    made.clock.advance(timedelta(minutes=11))
    (seen,) = made.minute({**USUAL, "caller-3": 400}, gateways=3, incident=True)
    assert (seen.evidence["fleet"], seen.evidence["margin"]) == ("incident", 2.0)


def test_a_control_that_starts_anew_knows_what_was_usual() -> None:
    records = memory_records(metadata)
    first = Installation(Hours(records))
    for _ in range(61):
        first.minute(USUAL)

    second = Installation(Hours(records))
    second.clock.advance(first.clock.monotonic_s())
    second.look()
    assert second.minute(USUAL) == ()
    (seen,) = second.minute({**USUAL, "caller-3": 2000})
    assert (seen.principal, seen.evidence["usual"]) == ("caller-3", 0.1)
    assert second.sentry.watch.taught() == first.sentry.watch.taught()
    records.close()


def test_hours_are_kept_for_five_weeks_and_each_once() -> None:
    records = memory_records(metadata)
    kept, watch = Hours(records), ShareWatch()
    for hour in (0, 0, 1, 5 * 168):
        kept.keep(Hour(hour=hour, known={"a": 1.0}, strangers={}), watch)
    with records.read() as tx:
        assert tx.execute(select(hours.c.hour).order_by(hours.c.hour)).scalars().all() == [1, 840]
    records.close()


def test_more_load_than_there_is_room_for_names_nobody_and_only_once_it_lasts() -> None:
    made = Installation()
    busy = MeterReading(layout=LAYOUT, started_us=0, up_us=0, in_flight=90, slots=100)

    def minute(reading: MeterReading) -> tuple[Sighting, ...]:
        beat = Beat(gateway="g", epoch=1, ready=True, answers=0, refusals=0, meters=encode_reading(reading))
        made.clock.advance(MINUTE_S)
        found = made.sentry.look([GatewayState(gateway="g", pid=1, serving=1, beat=beat)])
        assert found is not None
        return found

    assert [minute(busy) for _ in range(3)] == [()] * 3
    (seen,) = minute(busy)
    assert (seen.kind, seen.principal, seen.group, seen.evidence["under_way"]) == (
        "capacity",
        "",
        "gateways",
        90,
    )
    assert minute(replace(busy, in_flight=80)) == ()


def test_minutes_without_any_requests_end_nothing_at_first_and_then_all_of_it() -> None:
    made = learned()
    assert made.minute({**USUAL, "caller-3": 2000})
    assert [len(made.minute({})) for _ in range(5)] == [1, 1, 1, 1, 0]
    assert made.minute(USUAL) == ()


def test_a_change_of_the_fleet_is_said_with_its_pool_number_and_reason() -> None:
    seen = scaled("scale_1", {"pool": "gateways", "n": 4, "reason": "more load", "seq": 2})
    assert (seen.kind, seen.group, seen.resource, seen.severity) == (
        "scale",
        "scale_1",
        "pool:gateways",
        "info",
    )
    assert seen.summary == "pool gateways is to have 4 replicas: more load"
