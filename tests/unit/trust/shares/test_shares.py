"""Shares of the traffic: what is usual, how far one may stray, who is found and who is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.trust.shares import NEWCOMERS, Baseline, CapacityWatch, Margins, ShareWatch, hour_of_week
from taut.trust.shares.watch import multiple, times

MINUTE, HOUR, WEEK = 60.0, 3600.0, 7 * 86_400.0
MONDAY = 4 * 86_400.0  # 5 January 1970


def settled(counts: dict[str, int], *, hours: int = 2) -> tuple[ShareWatch, float]:
    """Return a watch that has seen the same traffic for hours, and the minute that comes next."""
    watch, at_s = ShareWatch(), MONDAY
    for _ in range(hours * 60):
        assert watch.observe(at_s, counts, "stable") == ()
        at_s += MINUTE
    return watch, at_s


TRAFFIC = {"ada": 30, "ben": 30, "cleo": 300, "dora": 640}


def test_the_week_begins_on_monday_at_midnight() -> None:
    assert [hour_of_week(MONDAY + hours * HOUR) for hours in (0, 1, 167, 168)] == [0, 1, 167, 0]


def test_a_share_is_the_median_of_the_same_hour_of_the_week_and_of_recent_hours_until_there_are_three() -> (
    None
):
    baseline = Baseline()
    for week, count in enumerate((10, 20, 90)):
        baseline.learn(MONDAY + week * WEEK, {"ada": count, "ben": 100 - count})
        baseline.learn(MONDAY + week * WEEK + HOUR, {"ada": 50, "ben": 50})
        baseline.learn(MONDAY + week * WEEK + 2 * HOUR, {})

    assert baseline.share("ada", MONDAY + 3 * WEEK) == pytest.approx(0.2)
    assert baseline.share("ada", MONDAY + 3 * WEEK + HOUR) == pytest.approx(0.5)
    assert baseline.share("ada", MONDAY + 3 * WEEK + 5 * HOUR) == pytest.approx(0.5)
    assert baseline.share("zoe", MONDAY) is None


def test_callers_beyond_the_bound_stay_newcomers() -> None:
    baseline = Baseline(callers_max=2)
    baseline.learn(MONDAY, {"ada": 1, "ben": 1, "cleo": 1})
    baseline.learn(MONDAY + HOUR, {})

    assert len(baseline) == 2


@given(st.floats(0.001, 0.9), st.floats(0.1, 100.0))
def test_multiplying_and_dividing_shares_agree(share: float, factor: float) -> None:
    raised = times(share, factor)

    assert 0 < raised < 1
    assert multiple(raised, share) == pytest.approx(factor, rel=1e-6)


def test_who_asks_five_times_as_often_is_found_within_a_minute_or_two_and_nobody_else_is() -> None:
    watch, at_s = settled(TRAFFIC)
    findings = [watch.observe(at_s + n * MINUTE, {**TRAFFIC, "ada": 150}, "stable") for n in range(3)]

    assert [finding.caller for finding in findings[-1]] == ["ada"]
    [ada] = findings[-1]
    assert ada.since_s <= at_s + MINUTE
    assert (ada.usual, ada.multiplier) == (pytest.approx(0.03), pytest.approx(5.0))


def test_traffic_that_grows_tenfold_together_finds_nobody_while_twenty_times_within_it_does() -> None:
    watch, at_s = settled(TRAFFIC)
    launch = {caller: 10 * count for caller, count in TRAFFIC.items()}

    assert [watch.observe(at_s + n * MINUTE, launch, "scaling") for n in range(30)] == [()] * 30
    [ben] = watch.observe(at_s + 30 * MINUTE, {**launch, "ben": 20 * launch["ben"]}, "scaling")
    assert (ben.caller, ben.margin) == ("ben", 8.0)


def test_what_is_allowed_while_the_fleet_scales_is_found_when_it_is_stable_and_less_in_an_incident() -> None:
    found = {}
    for state in ("stable", "scaling", "draining", "incident"):
        watch, at_s = settled(TRAFFIC)
        for n in range(10):
            found[state] = watch.observe(at_s + n * MINUTE, {**TRAFFIC, "ada": 120}, state)  # type: ignore[arg-type]

    assert {state: len(one) for state, one in found.items()} == {
        "stable": 1, "scaling": 0, "draining": 0, "incident": 1,
    }  # fmt: skip


def test_a_finding_lasts_as_long_as_the_share_and_is_forgiven_after() -> None:
    watch, at_s = settled(TRAFFIC)
    for n in range(5):
        watch.observe(at_s + n * MINUTE, {**TRAFFIC, "ada": 600}, "stable")
    after = [watch.observe(at_s + n * MINUTE, TRAFFIC, "stable") for n in range(5, 25)]

    assert after[0][0].since_s == at_s
    assert after[-1] == ()


def test_newcomers_are_watched_as_one() -> None:
    steady = {**TRAFFIC, "new-0": 10}
    watch, at_s = ShareWatch(), MONDAY
    for n in range(4 * 60):  # each hour somebody else is new
        assert watch.observe(at_s, {**TRAFFIC, f"new-{n // 60}": 10}, "stable") == ()
        at_s += MINUTE

    assert watch.observe(at_s, steady, "stable") == ()
    flood = {f"new-{n}": 8 for n in range(100, 150)}
    [found] = [
        one for n in range(3) for one in watch.observe(at_s + n * MINUTE, {**TRAFFIC, **flood}, "stable")
    ][-1:]
    assert found.caller == NEWCOMERS


def test_an_abused_hour_is_not_learned_beyond_the_margin() -> None:
    watch, at_s = settled(TRAFFIC)
    for n in range(24 * 60):
        watch.observe(at_s + n * MINUTE, {**TRAFFIC, "ada": 30_000}, "stable")

    usual = watch.baseline.share("ada", at_s + 24 * HOUR)
    assert usual is not None
    assert usual == pytest.approx(0.03, rel=0.1)


def test_what_somebody_accepts_becomes_usual() -> None:
    watch, at_s = settled(TRAFFIC)
    more = {**TRAFFIC, "ada": 300}
    found = watch.observe(at_s, more, "stable")
    watch.accept("ada")
    later = [watch.observe(at_s + n * MINUTE, more, "stable") for n in range(1, 240)]

    assert [one.caller for one in found] == ["ada"]
    assert later[-1] == ()
    assert watch.baseline.share("ada", at_s + 240 * MINUTE) == pytest.approx(300 / 1270)


def test_nothing_is_found_before_anything_is_usual_and_in_minutes_without_traffic() -> None:
    watch = ShareWatch()

    assert watch.observe(MONDAY, {"ada": 10_000}, "stable") == ()
    assert watch.observe(MONDAY + MINUTE, {}, "stable") == ()


def test_a_margin_is_given_at_first_and_then_learned_by_state() -> None:
    margins = Margins()
    given = margins.margin("stable", callers=100)
    for n in range(1, 30_001):  # log-normal with a spread of 0.3
        margins.observe("stable", math.exp(0.3 * _normal((n - 0.5) / 30_000)))

    assert given == 3.0
    assert margins.margin("stable", callers=1) == pytest.approx(math.exp(0.3 * 3.09), rel=0.1)
    assert margins.margin("stable", callers=1000) == pytest.approx(math.exp(0.3 * 4.26), rel=0.1)
    assert margins.margin("incident", callers=1) == 2.0
    assert margins.margin("scaling", callers=100) == 8.0


def test_a_learned_margin_is_bounded() -> None:
    wide, narrow = Margins(), Margins()
    for n in range(1, 30_001):
        wide.observe("scaling", math.exp(3.0 * _normal((n - 0.5) / 30_000)))
        narrow.observe("scaling", 1.0)

    assert wide.margin("draining", callers=1000) == 30.0
    assert narrow.margin("draining", callers=1000) == 1.5


def _normal(at: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(at)


def test_capacity_is_alarmed_for_after_the_lag_of_scaling_and_not_before() -> None:
    watch = CapacityWatch(scaling_lag_s=120)
    seen = [
        watch.observe(at, load=load, limit=100) for at, load in ((0, 90), (60, 150), (120, 150), (200, 150))
    ]

    assert seen == [None, None, None, 60]
    assert watch.observe(260, load=100, limit=100) is None


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInput):
        ShareWatch(false_alarm_minutes=0)
    with pytest.raises(InvalidInput):
        CapacityWatch(scaling_lag_s=-1)
