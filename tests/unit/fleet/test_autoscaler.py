"""The autoscaler decides from looks alone, and says why."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.fleet.scaling import Autoscaler, Decision, Hour, Load, LoadHours, Look, Rule

HOUR_S, DAY_S, WEEK_S = 3600.0, 86_400.0, 7 * 86_400.0


def rule(**words: Any) -> Rule:
    return Rule(**{"pool": "gateway", "minimum": 1, "maximum": 20, "cpu": 0.5, **words})


def look(at_s: float, *cpu: float | None, wall_s: float = 0.0, **words: Any) -> Look:
    loads = tuple(Load(cpu=one) for one in cpu if one is not None)
    return Look(at_s=at_s, wall_s=wall_s + at_s, loads=loads, **{"ready": len(cpu), **words})


def after(scaler: Autoscaler, seconds: int, *cpu: float | None, n: int, begin_s: int = 0) -> Decision:
    """Decide once a second as long as nothing changes; return the last decision."""
    decision = scaler.decide(look(begin_s, *cpu), n=n)
    for at_s in range(begin_s + 1, begin_s + seconds):
        if decision.changes:
            return decision
        decision = scaler.decide(look(at_s, *cpu), n=n)
    return decision


def test_load_beyond_what_is_aimed_at_asks_for_more_in_words() -> None:
    decided = after(Autoscaler(rule()), 60, 0.7, 0.7, 0.7, n=3)

    assert (decided.n, decided.signal, decided.mode, decided.bound) == (5, "cpu", "stable", "")
    assert decided.why == "2.1 processors busy, 0.5 a replica: asks for 5"


def test_load_within_the_tolerance_changes_nothing() -> None:
    decided = after(Autoscaler(rule()), 400, 0.54, 0.54, 0.54, n=3)

    assert (decided.n, decided.bound) == (3, "tolerance")


def test_less_is_ordered_only_once_less_was_enough_for_a_cooldown() -> None:
    scaler = Autoscaler(rule(cooldown_s=100.0))

    kept = after(scaler, 100, 0.1, 0.1, 0.1, n=3)
    assert (kept.n, kept.bound) == (3, "cooldown")
    assert scaler.decide(look(100, 0.1, 0.1, 0.1), n=3).n == 1


def test_a_saturated_processor_asks_for_twice_as_many_since_more_cannot_be_seen() -> None:
    decided = after(Autoscaler(rule(cpu=0.8)), 10, 1.0, 1.0, n=2)

    assert (decided.n, decided.mode) == (4, "panic")


def test_in_a_burst_nothing_is_scaled_down() -> None:
    scaler = Autoscaler(rule(cooldown_s=10.0, stable_s=60.0, concurrency=10.0, cpu=None))

    def asked(at_s: float, concurrency: float, n: int) -> Decision:
        loads = (Load(concurrency=concurrency / 2),) * 2
        return scaler.decide(Look(at_s=at_s, wall_s=at_s, ready=2, loads=loads), n=n)

    assert [asked(at_s, 80.0, 2).n for at_s in range(7)] == [2] * 6 + [8]  # nothing by the first look alone
    calm = [asked(at_s, 1.0, 8) for at_s in range(7, 66)]
    assert {one.mode for one in calm} == {"panic"}
    assert {one.n for one in calm} == {8}
    later = [asked(at_s, 1.0, 8) for at_s in range(72, 140)]
    assert min(one.n for one in later) < 8


def test_who_is_silent_counts_as_idle_on_the_way_up_and_as_busy_on_the_way_down() -> None:
    up = after(Autoscaler(rule()), 60, 1.2, None, None, n=3)
    down = after(Autoscaler(rule(cooldown_s=10.0)), 100, 0.1, None, None, n=3)

    assert up.n == 3  # 1.2 processors are not more than three carry
    assert down.n == 3  # one is idle; of the two others nobody knows
    assert down.told == ("2 of 3 tell nothing",)


def test_where_nobody_tells_anything_nothing_changes_and_it_is_said() -> None:
    scaler = Autoscaler(rule())
    after(scaler, 60, 0.9, n=1)
    blind = [scaler.decide(look(at_s, None, None), n=2) for at_s in range(60, 500)]

    assert {one.n for one in blind} == {2}
    assert blind[-1].mode == "blind"
    assert "nothing is changed" in blind[-1].why


@pytest.mark.parametrize("lie", [nan, inf, -inf, -1.0])
def test_what_cannot_be_was_not_told(lie: float) -> None:
    decided = after(Autoscaler(rule()), 60, lie, 0.5, n=2)

    assert decided.n == 2
    assert any("cannot be" in said for said in decided.told)


def test_a_clock_that_stands_still_or_goes_back_changes_nothing() -> None:
    scaler = Autoscaler(rule())
    scaler.decide(look(10, 0.5), n=1)

    assert not scaler.decide(look(10, 50.0), n=1).changes
    assert not scaler.decide(look(5, 50.0), n=1).changes


def test_what_somebody_set_beyond_the_bounds_is_brought_back_at_once() -> None:
    assert Autoscaler(rule(maximum=4)).decide(look(0, *[0.5] * 6), n=6).n == 4
    assert Autoscaler(rule(minimum=2)).decide(look(0, 0.5), n=1).n == 2
    assert Autoscaler(rule(maximum=4)).decide(look(0, *[None] * 6), n=6).n == 4


def test_latency_beyond_its_share_of_the_objective_asks_for_more_where_replicas_are_busy() -> None:
    scaler, idle = Autoscaler(rule(latency=0.8)), Autoscaler(rule(latency=0.8))

    slow = [scaler.decide(look(at_s, 0.4, 0.4, latency=1.6), n=2) for at_s in range(7)][-1]
    assert (slow.n, slow.signal) == (4, "latency")
    assert (
        idle.decide(look(0, 0.05, 0.05, latency=9.0), n=2).n == 2
    )  # the model is slow: more of it is no cure


def test_latency_close_to_its_aim_keeps_what_there_is() -> None:
    scaler = Autoscaler(rule(latency=0.8, cooldown_s=10.0))
    kept = [scaler.decide(look(at_s, *[0.26] * 4, latency=0.8), n=4) for at_s in range(100)]

    assert {one.n for one in kept} == {4}


def test_the_largest_demand_of_all_signals_wins() -> None:
    scaler = Autoscaler(rule(gpu=0.5))
    loads = (Load(cpu=0.1, gpu=0.7), Load(cpu=0.1, gpu=0.7))
    looks = [Look(at_s=at_s, wall_s=at_s, ready=2, loads=loads) for at_s in range(7)]
    decided = [scaler.decide(one, n=2) for one in looks][-1]

    assert (decided.n, decided.signal) == (3, "gpu")


def test_the_last_one_goes_after_idleness_and_comes_with_the_first_request() -> None:
    scaler = Autoscaler(rule(minimum=0, idle_s=30.0, concurrency=1.0, cpu=None))

    def at(at_s: float, n: int, concurrency: float = 0.0, waiting: int = 0) -> Decision:
        loads = (Load(concurrency=concurrency),) * n
        return scaler.decide(Look(at_s=at_s, wall_s=at_s, ready=n, loads=loads, waiting=waiting), n=n)

    assert at(0, 1, concurrency=0.4).n == 1
    assert [at(at_s, 1).n for at_s in range(1, 30)] == [1] * 29
    gone = at(30, 1)
    assert (gone.n, gone.mode) == (0, "idle")
    assert at(31, 0).n == 0
    woken = at(32, 0, waiting=1)
    assert (woken.n, woken.mode) == (1, "woken")


def weeks(*loads: float) -> LoadHours:
    """Monday's first hour of as many weeks, from the first on."""
    return LoadHours(
        tuple(Hour(hour=96 + 168 * week, loads={"cpu": load}) for week, load in enumerate(loads))
    )


def test_what_is_usual_at_this_hour_of_the_week_is_there_ahead_of_time() -> None:
    hours = weeks(4.0, 4.0, 90.0)  # one launch among them moves nothing
    monday_s = (96 + 168 * 3) * HOUR_S
    scaler = Autoscaler(rule(lead_s=120.0), hours=hours)
    decided = [scaler.decide(look(at_s, 0.1, wall_s=monday_s - 130), n=1) for at_s in range(11)]

    assert [one.n for one in decided] == [1] * 10 + [8]
    assert decided[-1].bound == "forecast"


def test_two_weeks_are_no_forecast() -> None:
    assert weeks(4.0, 4.0).usual((96 + 168 * 2) * HOUR_S, "cpu") is None
    assert weeks(4.0, 0.0, 5.0).usual((96 + 168 * 3) * HOUR_S, "cpu") == 4.0


def test_hours_are_learned_by_the_highest_mean_of_five_minutes() -> None:
    hours = LoadHours()
    for second in range(3 * 300):
        hours.learn(second, {"cpu": 2.0 if second // 300 == 1 else 0.5}, replicas=3)
    hours.learn(2 * HOUR_S, {}, replicas=0)

    first = LoadHours((Hour(hour=0, loads={"cpu": 2.0}, replica_s=3 * 899.0),))
    assert first.spent_s(10.0) == hours.spent_s(10.0)
    assert [one.loads for one in LoadHours().recent()] == []
    assert hours.recent()[-1].hour == 2


def test_a_clock_that_is_set_back_teaches_nothing() -> None:
    hours = LoadHours()
    hours.learn(100.0, {}, replicas=1)
    hours.learn(50.0, {"cpu": 9.0}, replicas=100)
    hours.learn(101.0, {}, replicas=1)

    assert hours.spent_s(101.0) == 1.0


def test_the_budget_of_a_day_is_kept_whatever_the_load_and_the_minimum_stays() -> None:
    scaler = Autoscaler(rule(minimum=1, maximum=20, replica_hours=30.0))
    n = 1
    for at_s in range(0, int(DAY_S), 30):
        n = scaler.decide(look(at_s, *[1.0] * n), n=n).n
        assert n >= 1
    assert n == 1
    assert 0.9 * 30 <= scaler.hours.spent_s(DAY_S - 1) / HOUR_S <= 30.01


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=12),
            st.floats(allow_nan=True), st.integers(-2, 90),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_whatever_is_told_the_number_stays_within_bounds_and_goes_down_only_in_steps(
    looks: list[tuple[int, list[float], float, int]],
) -> None:
    scaler, n, at_s = Autoscaler(rule(minimum=1, maximum=9, latency=0.8, cooldown_s=60.0)), 3, 0.0
    for ready, cpu, latency, later_s in looks:
        at_s += later_s
        loads = tuple(Load(cpu=one) for one in cpu[:ready])
        decided = scaler.decide(Look(at_s=at_s, wall_s=at_s, ready=ready, loads=loads, latency=latency), n=n)
        assert 1 <= decided.n <= 9
        assert decided.n >= n // 2
        assert decided.why
        n = decided.n


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"minimum": 5, "maximum": 4}, "minimum 5 and maximum 4"),
        ({"cpu": None}, "nothing is aimed at"),
        ({"cpu": nan}, "finite and above 0"),
        ({"cpu": -0.5}, "finite and above 0"),
        ({"panic_s": 90.0}, "panic_s"),
        ({"cooldown_s": 86_400.0}, "at most 7200"),
        ({"up": 1.0}, "above 1"),
        ({"minimum": 0}, "idle_s"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        rule(**words)
