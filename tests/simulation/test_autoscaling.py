"""The autoscaler under loads that grow, burst, shake and lie, with capacity that comes late or not at all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf, nan, pi, sin
from pathlib import Path
from typing import Any

import pytest
from scaling_plot import draw
from scaling_world import MONDAY_S, RATE, START_S, Plain, World, bursts, noise, ramp, step

from taut.fleet.scaling import Autoscaler, Load, LoadHours, Rule

TARGET, MOST = 0.7, 200
HOUR_S, WEEK_S = 3600.0, 7 * 86_400.0


def rule(**words: Any) -> Rule:
    return Rule(**{"pool": "gateway", "minimum": 1, "maximum": MOST, "cpu": TARGET, **words})


def world(load: Callable[[float], float], n: int, *, scaler: Any = None, **words: Any) -> World:
    return World(scaler or Autoscaler(rule()), load, n=n, ready=n, **words)


def pair(load: Callable[[float], float], n: int, seconds: float) -> tuple[World, World]:
    """The same load under the autoscaler and under a plain target tracker."""
    return world(load, n).run(seconds), world(load, n, scaler=Plain(TARGET, most=MOST)).run(
        seconds, tick_s=2.0
    )


def test_a_tenfold_step_is_carried_within_half_a_minute() -> None:
    ours, plain = pair(step(60, 100, 1000), 2, 900)

    assert ours.short_s <= 30
    assert ours.short_s < plain.short_s / 2
    assert ours.n == 15  # 1,000 requests a second at 70 a replica
    assert ours.reversals <= 1


def test_from_10_to_100_replicas_at_once_and_50_more_within_three_minutes() -> None:
    """As fast as one machine starts a gateway; what takes longer adds its own time at each doubling."""
    ours, plain = pair(step(60, 700, 7000), 10, 300)
    assert ours.short_s <= 30
    assert ours.short_s < plain.short_s / 2

    grown, plainly = pair(lambda at_s: 7000 + ramp(0, 3500, 180)(at_s - 60), 100, 400)
    assert grown.ready >= 135  # within a tenth of the 150 that are aimed at
    assert (grown.short_s, plainly.short_s) == (0, 0)


def test_where_a_start_takes_a_minute_each_doubling_takes_one_and_no_more_is_asked_for_meanwhile() -> None:
    slow = world(step(60, 700, 7000), 10, starts=lambda _: 60.0).run(600)

    assert slow.short_s <= 5 * 66
    assert max(one.n for _, one in slow.changes) <= MOST
    between = [one.n for at_s, one in slow.changes if 70 < at_s < 120]
    assert between == []


def test_a_ramp_is_followed_without_a_step_back() -> None:
    ours = world(ramp(100, 2000, 600), 2).run(800)

    assert ours.short_s <= 10
    assert ours.reversals == 0
    assert 26 <= ours.n <= 29


def test_bursts_that_come_again_within_the_cooldown_find_what_the_first_one_brought() -> None:
    ours, plain = pair(bursts(100, 1500, 240, 60), 2, 1000)

    first = world(bursts(100, 1500, 240, 60), 2).run(239)
    assert ours.short_s == first.short_s <= 35  # nothing after the first
    assert plain.short_s > ours.short_s


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_changes_next_to_nothing(seed: int) -> None:
    ours = world(noise(1000, 0.5, seed), 15).run(1200)

    assert len(ours.changes) <= 4
    assert ours.short_s <= 60
    assert 13 <= ours.n <= 20


@pytest.mark.parametrize("every_s", [30, 400])
def test_a_load_that_swings_makes_no_more_turns_than_there_are_cooldowns(every_s: float) -> None:
    seconds = 2400
    ours = world(lambda at_s: 1000 + 900 * sin(2 * pi * at_s / every_s), 15).run(seconds, tick_s=2.0)

    downs = [at_s for at_s, one in ours.changes if one.n < one.before]
    assert ours.reversals <= 2 * seconds / 300 + 1
    assert all(later - sooner >= 60 for sooner, later in pairwise(downs))


def day(at_s: float) -> float:
    """Quiet, and from nine to seventeen tenfold at once."""
    return 1000.0 if 9 * HOUR_S <= at_s % 86_400 < 17 * HOUR_S else 100.0


def test_what_is_usual_is_there_before_the_load_comes() -> None:
    hours = LoadHours()
    for week in range(3):
        for minute in range(7 * 60, 24 * 60):
            at_s = minute * 60.0
            hours.learn(MONDAY_S + week * WEEK_S + at_s, {"cpu": day(at_s) / RATE}, replicas=0)
    monday_s = MONDAY_S + 3 * WEEK_S

    def run(scaler: Autoscaler, load: Callable[[float], float] = day) -> World:
        made = world(load, 2, scaler=scaler, began_s=monday_s)
        made.at_s = 9 * HOUR_S - 600
        return made.run(1200)

    known, unknown = run(Autoscaler(rule(), hours=hours)), run(Autoscaler(rule()))
    assert known.short_s == 0
    assert unknown.short_s > 10
    holiday = run(Autoscaler(rule(), hours=hours), lambda _: 100.0)
    assert holiday.n == 15  # a lower bound, which an hour without load does not lift
    assert {one.bound for _, one in holiday.decisions[-60:]} == {"forecast"}


def test_starts_that_fail_are_not_asked_for_without_end() -> None:
    none = world(step(60, 100, 1000), 2, starts=lambda _: None).run(900)
    assert none.n <= 4  # twice what serves: nobody knows how much more there is to do
    half = world(step(60, 100, 1000), 2, starts=lambda number: START_S if number % 2 else None).run(900)
    assert half.ready == half.n
    assert half.short_s <= 90


def test_where_nothing_is_told_nothing_changes_and_it_goes_on_afterwards() -> None:
    def mute(at_s: float, loads: tuple[Load, ...]) -> tuple[Load, ...]:
        return () if 100 <= at_s < 400 else loads

    ours = world(step(200, 500, 1000), 7, tell=mute).run(600)

    silent = [one for at_s, one in ours.decisions if 200 <= at_s < 400]
    assert {one.n for one in silent} == {7}
    assert silent[-1].mode == "blind"
    assert ours.n >= 14


@pytest.mark.parametrize("lie", [nan, inf, -1.0, 1e300])
def test_what_cannot_be_changes_nothing(lie: float) -> None:
    def false(_: float, loads: tuple[Load, ...]) -> tuple[Load, ...]:
        return (Load(cpu=lie, concurrency=lie), *loads[1:])

    ours = world(lambda _: 700.0, 10, tell=false).run(400)

    assert {one.n for _, one in ours.decisions} == {10}
    assert any("cannot be" in said for said in ours.decisions[-1][1].told)


def test_a_control_that_dies_between_intent_and_capacity_begins_anew_and_gets_there() -> None:
    """Whatever was decided and not done is decided again, by a core that remembers nothing."""
    for died_s in (63, 70, 77):
        ours = world(step(60, 100, 1000), 2)
        ours.run(died_s)
        ours.run(1, obey=False)  # said, not done
        asked = ours.n
        ours.decider = Autoscaler(rule())
        assert ours.run(60).n >= asked
        ours.run(200)
        assert ours.n >= 14
        assert ours.short_s <= 60


def test_without_its_guards_the_same_core_flaps_and_starves() -> None:
    """The guards that the tests above rest on are what holds them: without, they fail."""

    class NoCooldown(Autoscaler):
        def _paced(self, target: int, at_s: float, n: int, bound: Any) -> Any:
            return target, bound

    class NoBurst(Autoscaler):
        def _saturated(self, signal: str, found: Any) -> bool:
            return False

    shaken = world(noise(1000, 0.5, 1), 15, scaler=NoCooldown(rule(stable_s=5.0, panic_s=2.0))).run(900)
    calm = world(noise(1000, 0.5, 1), 15, scaler=Autoscaler(rule(stable_s=5.0, panic_s=2.0))).run(900)
    assert len(shaken.changes) > 10 * max(1, len(calm.changes))
    assert world(step(60, 700, 7000), 10, scaler=NoBurst(rule())).run(300).short_s > 60


def test_the_picture_in_the_docs_is_what_the_core_draws() -> None:
    kept = Path(__file__).parents[2] / "docs/how-to/scale.svg"

    assert kept.read_text() == draw(), (
        "the core decides otherwise than the picture shows: run tools/plot_scaling"
    )
