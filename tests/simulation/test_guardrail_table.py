"""Healthy and harmful canaries through the product's own rule: the error it promises, and how soon it finds harm.

`python -m benchmarks guardrails` draws the whole table; here are fewer runs of the same seeds.
"""

from __future__ import annotations

import math

from benchmarks.canaries import (
    Minute,
    World,
    flagger_rule,
    judged,
    label_rule,
    latency_judged,
    slower_by,
    z_rule,
)

RUNS = 25


def test_few_healthy_canaries_are_rolled_back_however_often_one_looks() -> None:
    assert judged(World(), label_rule(), runs=RUNS).share <= 0.1
    assert judged(World(shock=6.0), label_rule(), runs=RUNS).share <= 0.1
    staged = World(weights=(0.01, 0.05, 0.25, 0.5))
    assert judged(staged, label_rule(restarts=4), runs=RUNS).share <= 0.1


def test_what_others_do_on_the_same_runs_is_not_as_good() -> None:
    assert judged(World(), z_rule, runs=RUNS).share > 0.2
    assert judged(World(), flagger_rule, runs=RUNS).share > 0.9


def test_harm_is_found_as_soon_as_the_design_says() -> None:
    half = judged(World(times=1.5), label_rule(), runs=RUNS)
    double = judged(World(times=2.0), label_rule(), runs=RUNS)
    assert half.share >= 0.9
    assert half.median <= 9_500
    assert double.share == 1.0
    assert double.median <= 3_000
    assert judged(World(times=4.0), label_rule(), runs=RUNS).median <= 500


def test_harm_that_begins_late_is_found_sooner_by_processes_begun_anew() -> None:
    late = World(times=2.0, onset=120)
    anew, once = judged(late, label_rule(restarts=4), runs=RUNS), judged(late, label_rule(), runs=RUNS)
    assert anew.share >= 0.95
    assert anew.median < once.median


def test_slow_answers_are_found_and_equal_ones_are_not() -> None:
    assert latency_judged([1.0] * 4, runs=15).share <= 0.1
    assert latency_judged(slower_by(1.2), runs=15).median <= 600


def test_a_rule_without_the_split_in_its_null_would_be_seen() -> None:
    """A planted fault: the process is told twice the weight that the canary has, so each failure on the baseline tells against the wrong arm."""
    swapped = [
        Minute(0.05, 100, 900, minute, 5) for minute in [1, 0, 1, 0] * 60
    ]  # healthy at 10%, judged as if it were 5%
    assert label_rule()(swapped) is not None
    assert label_rule()([minute._replace(weight=0.1) for minute in swapped]) is None
    assert math.isnan(judged(World(), lambda _: None, runs=1).median)
