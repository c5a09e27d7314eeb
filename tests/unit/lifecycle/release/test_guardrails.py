"""The processes by which a canary is judged: fair games under the null, growing under harm, resumed from whole numbers."""

from __future__ import annotations

import math
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.lifecycle.release.guardrails import (
    BinState,
    PayoffState,
    Phase,
    Stage,
    absolute_log_e,
    add_bins,
    add_payoffs,
    detectable,
    distance_at_least,
    empty_bins,
    label_log_e,
    latency_log_e,
    paired_log_e,
    ratio_bounds,
    two_sided_log_e,
)
from taut.lifecycle.release.guardrails.label import theta

WEIGHTS = st.floats(0.001, 0.5)
RATIOS = st.floats(0.2, 5.0)
COUNTS = st.integers(0, 40)


@given(WEIGHTS, RATIOS, COUNTS, COUNTS, st.floats(0.05, 1.0))
def test_one_more_event_is_a_fair_game_at_the_null_and_a_losing_one_below_it(
    weight: float, ratio: float, canary: int, baseline: int, below: float
) -> None:
    before = math.exp(label_log_e([Stage(weight, canary, baseline)], ratio=ratio))
    up = math.exp(label_log_e([Stage(weight, canary + 1, baseline)], ratio=ratio))
    down = math.exp(label_log_e([Stage(weight, canary, baseline + 1)], ratio=ratio))
    null, less = theta(ratio, weight), theta(ratio * below, weight)
    assert null * up + (1 - null) * down == pytest.approx(before)
    assert less * up + (1 - less) * down <= before * (1 + 1e-9)


@given(WEIGHTS, RATIOS, COUNTS, COUNTS)
def test_harm_that_is_a_decrease_is_as_fair(weight: float, ratio: float, canary: int, baseline: int) -> None:
    def e(k: int, n: int) -> float:
        return math.exp(label_log_e([Stage(weight, k, n)], ratio=ratio, harm="down"))

    null = theta(ratio, weight)
    assert null * e(canary + 1, baseline) + (1 - null) * e(canary, baseline + 1) == pytest.approx(
        e(canary, baseline)
    )


def test_processes_begun_anew_average_to_one_before_anything_is_seen() -> None:
    assert label_log_e([], restarts=4) == pytest.approx(0.0)
    assert label_log_e([Stage(0.01), Stage(0.05)], restarts=4) == pytest.approx(0.0)
    alone = math.exp(label_log_e([Stage(0.1, 12, 20)]))
    assert math.exp(label_log_e([Stage(0.1, 12, 20)], restarts=4)) == pytest.approx((alone + 3) / 4)


def test_a_shock_that_both_arms_share_is_no_evidence() -> None:
    assert label_log_e([Stage(0.1, 100, 900)]) < 0.0
    assert label_log_e([Stage(0.1, 200, 900)]) > math.log(1000)


def test_a_state_is_whole_numbers_and_comes_back_as_it_was() -> None:
    stages = (Stage(0.01, 3, 40), Stage(0.05, 9, 33))
    assert msgspec.json.decode(msgspec.json.encode(stages), type=tuple[Stage, ...]) == stages
    assert stages[0].plus(1, 2) == Stage(0.01, 4, 42)


def test_a_broken_split_is_seen_in_both_directions() -> None:
    assert two_sided_log_e([Stage(0.1, 1_000, 9_000)]) < math.log(20)
    assert two_sided_log_e([Stage(0.1, 1_200, 8_800)]) > math.log(20)
    assert two_sided_log_e([Stage(0.1, 800, 9_200)]) > math.log(20)


def test_the_bounds_of_the_ratio_hold_it_and_narrow_with_what_is_seen() -> None:
    few, many = (
        ratio_bounds([Stage(0.1, 10, 90)], alpha=0.05),
        ratio_bounds([Stage(0.1, 100, 900)], alpha=0.05),
    )
    assert few[0] < many[0] < 1.0 < many[1] < few[1]
    assert ratio_bounds([Stage(0.1)], alpha=0.05) == (0.0, math.inf)
    assert ratio_bounds([Stage(0.1, 0, 500)], alpha=0.05)[1] < 0.5
    assert ratio_bounds([Stage(0.1, 200, 0)], alpha=0.05)[0] > 10


def test_latency_takes_the_mean_over_its_reference_times() -> None:
    slow, same = [Stage(0.1, 60, 100)], [Stage(0.1, 10, 90)]
    expected = (math.exp(label_log_e(slow)) + math.exp(label_log_e(same))) / 2
    assert math.exp(latency_log_e([slow, same])) == pytest.approx(expected)


def test_a_shadow_is_judged_by_the_pairs_that_differ() -> None:
    assert paired_log_e(20, 20) < 0.0
    assert paired_log_e(40, 5) > math.log(100)


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.5, 0.9])
def test_the_absolute_process_is_a_fair_game_at_its_limit(limit: float) -> None:
    for bad, total in product((0, 3), (3, 50)):
        before = math.exp(absolute_log_e(bad, total, limit=limit))
        after = [math.exp(absolute_log_e(bad + one, total + 1, limit=limit)) for one in (0, 1)]
        assert (1 - limit) * after[0] + limit * after[1] == pytest.approx(before)
    assert absolute_log_e(0, 0, limit=limit) == pytest.approx(0.0, abs=1e-9)


def test_the_absolute_process_grows_beyond_its_limit_only() -> None:
    assert absolute_log_e(60, 1_000, limit=0.02) > math.log(20)
    assert absolute_log_e(20, 1_000, limit=0.02) < math.log(20)


def test_drift_of_predictions_is_a_fair_game_from_one_interval_to_the_next() -> None:
    state = BinState((3, 9), (40, 20))
    canary = add_bins(state, (1, 0), (0, 0), weight=0.2).log_e
    baseline = add_bins(state, (0, 0), (1, 0), weight=0.2).log_e
    assert 0.2 * math.exp(canary) + 0.8 * math.exp(baseline) == pytest.approx(1.0)


def test_drift_that_is_large_is_told_with_its_least_size_and_a_small_one_has_none() -> None:
    state = add_bins(empty_bins(4), (100, 100, 400, 400), (2_500, 2_500, 2_500, 2_500), weight=0.1)
    moved = add_bins(state, (500, 500, 2_000, 2_000), (12_500, 12_500, 12_500, 12_500), weight=0.1)
    assert moved.log_e > math.log(1000)
    assert 0.2 < distance_at_least(moved, alpha=0.05) < 0.3
    same = add_bins(empty_bins(2), (500, 500), (4_500, 4_500), weight=0.1)
    assert distance_at_least(same, alpha=0.05) == 0.0
    assert distance_at_least(empty_bins(), alpha=0.05) == 0.0


def test_payoffs_tell_a_canary_that_earns_less_and_are_fair_to_one_that_does_not() -> None:
    fair = PayoffState((0.0,) * 5, 40.0, 10)
    canary, baseline = (add_payoffs(fair, [(arm, 1.0)], weight=0.1, bound=10.0) for arm in (True, False))
    for own, other in zip(canary.logs, baseline.logs, strict=True):
        assert 0.1 * math.exp(own) + 0.9 * math.exp(other) == pytest.approx(1.0)
    less = [(at % 2 == 0, 1.0 if at % 2 == 0 else 6.0) for at in range(400)]
    alike = [(at % 2 == 0, 1.0 if at % 4 < 2 else 6.0) for at in range(400)]
    assert add_payoffs(PayoffState(), less, weight=0.5, bound=10.0).log_e > math.log(100)
    assert add_payoffs(PayoffState(), alike, weight=0.5, bound=10.0).log_e < math.log(20)


def test_what_traffic_cannot_tell_is_said_before_the_start() -> None:
    assert detectable([Phase(0.1, 240_000)], rate=0.005, alpha=0.05) == 1.5
    assert detectable([Phase(0.1, 300)], rate=0.005, alpha=0.05) is None
    fewer = detectable([Phase(0.1, 24_000)], rate=0.1, alpha=0.05, harm="down")
    assert fewer is None or fewer < 1 / 1.05  # 5% fewer conversions cannot be seen in so few


@pytest.mark.parametrize(("weight", "ratio"), [(0.0, 1.0), (1.0, 1.0), (0.1, 0.0), (0.1, math.inf)])
def test_what_is_no_split_or_no_ratio_is_refused(weight: float, ratio: float) -> None:
    with pytest.raises(InvalidInput):
        label_log_e([Stage(weight, 1, 1)], ratio=ratio)


def test_counts_and_payoffs_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be"):
        absolute_log_e(3, 2, limit=0.1)
    with pytest.raises(InvalidInput, match="rate between"):
        absolute_log_e(1, 2, limit=1.0)
    with pytest.raises(InvalidInput, match="bins"):
        add_bins(empty_bins(2), (1, 2, 3), (1, 2, 3), weight=0.1)
    with pytest.raises(InvalidInput, match="declared"):
        add_payoffs(PayoffState(), [(True, 11.0)], weight=0.1, bound=10.0)
