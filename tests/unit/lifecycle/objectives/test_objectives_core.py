"""Objectives as values, their events in windows, and how fast a budget burns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.lifecycle.objectives import Count, Kept, Objective, Tally, judge, metadata, objectives_of
from taut.lifecycle.objectives.burn import evidence_of, too_few
from taut.project.manifest import SLOSpec
from taut.testing.records import memory_records
from taut.testing.world import ManualClock

DAY_S = 86_400.0
NOW_S = 1_000 * DAY_S + 43_210.0
UP = Objective(endpoint="delay", name="availability", target=0.999)


def test_a_declaration_becomes_objectives_with_what_is_counted_for_each() -> None:
    spec = SLOSpec(
        availability=0.999, latency_p95_ms=20, quality=0.9, freshness="30d", freeze=True, window="7d"
    )
    found = objectives_of("delay", spec)

    assert [(one.name, one.target, one.limit, one.measure) for one in found] == [
        ("availability", 0.999, 0.0, "availability"), ("latency", 0.95, 20.0, "latency:20"),
        ("quality", 0.9, 0.0, "quality"), ("freshness", 0.99, 30 * DAY_S, "freshness:2.592e+06"),
    ]  # fmt: skip
    assert {(one.window_s, one.freeze) for one in found} == {(7 * DAY_S, True)}
    assert found[0].words == "99.9% of requests answered"
    assert objectives_of("delay", None) == ()
    with pytest.raises(InvalidInput, match="has no budget"):
        Objective(endpoint="delay", name="live", target=1.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 50), st.floats(0, 5 * DAY_S)), max_size=30))
def test_events_are_in_every_window_that_is_long_enough_and_in_none_that_is_not(
    events: list[tuple[int, int, float]],
) -> None:
    tally = Tally(28 * DAY_S)
    for bad, total, ago_s in events:
        tally.add(bad, total, until_s=NOW_S - ago_s)

    for window_s, slot_s in (
        (300.0, 60),
        (3600.0, 60),
        (21_600.0, 60),
        (259_200.0, 3600),
        (28 * DAY_S, 3600),
    ):
        first = NOW_S // slot_s - window_s // slot_s + 1
        inside = [(bad, total) for bad, total, ago_s in events if (NOW_S - ago_s) // slot_s >= first]
        wanted = sum(bad for bad, _ in inside), sum(total for _, total in inside)
        assert tally.window(NOW_S, window_s) == wanted


def test_what_came_while_nobody_looked_is_spread_over_that_time_and_none_of_it_is_lost() -> None:
    tally = Tally(28 * DAY_S)
    tally.add(7, 1_000, since_s=NOW_S - 10 * 3600, until_s=NOW_S)

    assert tally.window(NOW_S, 3 * DAY_S) == (7, 1_000)
    assert 80 <= tally.window(NOW_S, 3600.0).total <= 170
    tally.add(-3, 0, until_s=NOW_S)  # outcomes that were corrected
    assert tally.window(NOW_S, 3 * DAY_S) == (4, 1_000)
    assert tally.window(NOW_S, 60.0).bad == 0


def test_an_outage_pages_by_the_fast_rule_and_ends_with_its_short_window() -> None:
    tally = Tally(28 * DAY_S)
    for minute in range(28 * 24 * 60):
        tally.add(0, 60, until_s=NOW_S - minute * 60)
    assert judge(UP, tally, NOW_S).state == "met"
    for minute in range(1, 11):
        tally.add(30, 60, until_s=NOW_S + minute * 60)
    then_s = NOW_S + 600
    now = judge(UP, tally, then_s)

    assert (now.state, now.worst.rule if now.worst else "") == ("burning", "fast")
    assert now.worst is not None
    assert (now.worst.bad, now.worst.events, now.worst.severity) == (300, 3_600, "critical")
    assert now.worst.rate == pytest.approx(300 / 3_600 / 0.001)
    assert now.budget.remaining == pytest.approx(1 - 300 / (0.001 * (now.budget.events)))
    assert now.budget.lasts_s == pytest.approx(now.budget.remaining * 28 * DAY_S / now.worst.rate)
    for minute in range(11, 41):
        tally.add(0, 60, until_s=NOW_S + minute * 60)
    after = judge(UP, tally, NOW_S + 2400)  # over for half an hour: the short windows say so
    assert (after.state, after.worst and after.worst.rule) == (
        "at risk",
        "steady",
    )  # three days' budget went in ten minutes


def test_a_single_error_at_night_pages_nobody_and_silence_is_never_green() -> None:
    tally = Tally(28 * DAY_S)
    assert judge(UP, tally, NOW_S).state == "too few events"
    tally.add(1, 1, until_s=NOW_S)
    alone = judge(UP, tally, NOW_S)

    assert (alone.burns[0].rate, alone.burns[0].firing) == (pytest.approx(1000), False)
    assert (
        evidence_of(Count(1, 1), 0.0144) > 20
    )  # one of one is 1.4% likely at that rate, and quiet hours are many
    assert (alone.state, alone.burns[0].few, alone.budget.spent) == ("too few events", True, False)
    tally.add(4, 4, until_s=NOW_S)
    assert judge(UP, tally, NOW_S).burns[0].firing  # five of five are no chance
    assert too_few(Count(0, 206), 0.0144)
    assert not too_few(Count(0, 207), 0.0144)


def test_a_budget_is_spent_when_it_is_used_up_and_surely_not_by_chance() -> None:
    tally = Tally(28 * DAY_S)
    tally.add(4, 3_000, until_s=NOW_S - DAY_S * 6)
    now = judge(UP, tally, NOW_S)
    assert (now.state, now.budget.spent) == ("at risk", False)  # 3 are allowed, and 4 come about often enough
    tally.add(16, 3_000, until_s=NOW_S - DAY_S * 6)
    now = judge(UP, tally, NOW_S)
    assert (now.state, now.budget.spent, now.budget.remaining) == ("spent", True, pytest.approx(1 - 20 / 6))
    assert now.worst is None


def test_an_objective_with_a_large_budget_can_burn_too_fast_all_the_same() -> None:
    right = Objective(endpoint="delay", name="quality", target=0.8)
    tally = Tally(28 * DAY_S)
    tally.add(30, 30, until_s=NOW_S)
    now = judge(right, tally, NOW_S)
    assert (now.state, now.burns[0].limit) == ("burning", pytest.approx(3.75))  # 14.4 times 20% is no share


def test_a_control_that_starts_anew_finds_what_was_kept_and_too_old_slots_are_gone() -> None:
    clock = ManualClock()
    kept, place = Kept(records := memory_records(metadata), clock), ("delay", "availability")
    assert kept.progress() is None
    tally, now_s = kept.tally(place, 90 * DAY_S), clock.now().timestamp()
    tally.add(3, 100, until_s=now_s)
    kept.keep({place: tally.changed()}, b"read so far")
    tally.kept(now_s)
    assert tally.changed() == ()
    tally.add(1, 1, until_s=now_s)
    kept.keep({place: tally.changed(), ("other", "live"): ()}, b"read on")

    again = Kept(records, clock)
    assert again.progress() == (b"read on", now_s)
    assert again.tally(place, 90 * DAY_S).window(now_s, 300.0) == (4, 101)
    clock.advance(7 * 3600.0)
    later_s = clock.now().timestamp()
    again.keep({}, b"")
    assert again.tally(place, DAY_S).window(later_s, 21_600.0) == (0, 0)
    assert again.tally(place, DAY_S).window(later_s, DAY_S) == (4, 101)
    clock.advance(91 * DAY_S)
    again.keep({}, b"")
    assert again.tally(place, 200 * DAY_S).window(clock.now().timestamp(), 100 * DAY_S) == (0, 0)
