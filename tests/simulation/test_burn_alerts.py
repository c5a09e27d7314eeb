"""Burn-rate alerts on simulated traffic, through the product's own tally and rules: nobody is paged without a reason, and soon with one."""

from __future__ import annotations

import numpy as np

from taut.lifecycle.objectives import Objective, Standing, Tally, judge

UP = Objective(endpoint="delay", name="availability", target=0.999)
NOW_S = 20_000 * 86_400.0


class World:
    """Traffic of so many requests a minute, with 3 days behind it in which 99.9% was just met."""

    def __init__(self, per_min: float, *, seed: int) -> None:
        self.tally = Tally(28 * 86_400.0)
        self.per_min = per_min
        self.minute = 0
        self._choose = np.random.default_rng(seed)
        for hour in range(72, 6, -1):
            self._add(per_min * 60, 0.001, NOW_S - hour * 3600.0)
        for minute in range(360, 0, -1):
            self._add(per_min, 0.001, NOW_S - minute * 60.0)

    def _add(self, requests: float, rate: float, at_s: float) -> None:
        total = int(self._choose.poisson(requests))
        self.tally.add(int(self._choose.binomial(total, rate)), total, until_s=at_s)

    def pass_minute(self, rate: float) -> Standing:
        at_s = NOW_S + self.minute * 60.0
        self._add(self.per_min, rate, at_s)
        self.minute += 1
        return judge(UP, self.tally, at_s)


def pages(standing: Standing) -> bool:
    return any(one.firing and one.severity == "critical" for one in standing.burns)


def by_the_workbook(standing: Standing) -> bool:
    """What the rules would do without a gate."""
    return any(
        one.bad > 0 and one.rate >= one.limit and one.short_rate >= one.limit
        for one in standing.burns
        if one.severity == "critical"
    )


def test_a_quiet_endpoint_that_keeps_its_promise_pages_nobody_where_rules_alone_would() -> None:
    gated = alone = 0
    for seed in range(3):
        world = World(1.0, seed=seed)
        for _ in range(600):
            standing = world.pass_minute(0.001)
            gated += pages(standing)
            alone += by_the_workbook(standing)
    assert (gated, alone > 0) == (0, True)


def test_where_there_is_traffic_the_gate_costs_no_time() -> None:
    for rate, soon in ((1.0, 1), (0.05, 20), (0.02, 50)):
        world = World(600.0, seed=5)
        standing = world.pass_minute(rate)
        while not by_the_workbook(standing):
            standing = world.pass_minute(rate)
        waited = world.minute
        while not pages(standing):
            standing = world.pass_minute(rate)
        assert world.minute - waited <= 2
        assert world.minute <= soon


def test_a_rate_just_below_the_rule_is_no_page_however_long_it_lasts() -> None:
    world = World(60.0, seed=7)
    fired = sum(world.pass_minute(0.0138).burns[0].firing for _ in range(120))
    assert fired == 0
