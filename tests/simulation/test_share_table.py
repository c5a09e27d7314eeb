"""The share detector on simulated traffic: who is found while the fleet is stable and while it grows tenfold, and who is not.

A thousand requests a minute of fifty callers whose shares are log-normal; a launch multiplies them by ten, each caller by
his own factor where it is not proportional. The table is in docs/explanation/load-anomalies.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from taut.trust.shares import FleetState, Margins, ShareWatch

CALLERS, BASE, RUNS = 50, 1000, 12
WARM_MIN, WATCHED_MIN = 130, 20
NAMES = [f"caller-{at}" for at in range(CALLERS)]


class Traffic:
    """One installation: its watch, its callers' shares, and its clock."""

    def __init__(self, seed: int, watch: ShareWatch | None = None) -> None:
        self.dice: Any = np.random.default_rng(seed)
        weights = self.dice.lognormal(0, 1, CALLERS)
        self.weights = weights / weights.sum()
        self.watch = watch or ShareWatch()
        self._at_s = 0.0
        for _ in range(WARM_MIN):
            assert self.minute(self.weights, BASE, "stable") == set()

    def minute(self, weights: Any, per_minute: float, state: FleetState) -> set[str]:
        """Return who is found after one more minute."""
        counts = self.dice.multinomial(self.dice.poisson(per_minute), weights / weights.sum())
        found = self.watch.observe(self._at_s, dict(zip(NAMES, counts.tolist(), strict=True)), state)
        self._at_s += 60.0
        return {finding.caller for finding in found}

    def launch(self, spread: float) -> Any:
        """Return everybody's requests, as multiples of the base's, in a launch."""
        return 10 * self.weights * np.exp(self.dice.normal(0, spread, CALLERS))

    def someone(self) -> int:
        """Return a caller in the middle."""
        return int(np.argsort(self.weights)[CALLERS // 2])


def falsely_found(spread: float, *, margins: Margins | None = None) -> float:
    """Return in what part of launches anybody is found, whoever it is."""
    bad = 0
    for seed in range(RUNS):
        traffic = Traffic(seed)
        if margins is not None:
            traffic.watch.margins.adopt(margins)
        asked = traffic.launch(spread)
        bad += any(traffic.minute(asked, BASE * asked.sum(), "scaling") for _ in range(WATCHED_MIN))
    return bad / RUNS


def minutes_to_find(times: float, *, spread: float = 0.0, state: FleetState, growth: float) -> list[int]:
    """Return how long each run took to find somebody who asks so many times as often; nobody else may be found."""
    took = []
    for seed in range(RUNS):
        traffic = Traffic(seed)
        asked = traffic.launch(spread) / 10 * growth
        who = traffic.someone()
        asked[who] *= times
        for minute in range(1, WATCHED_MIN + 1):
            found = traffic.minute(asked, BASE * asked.sum(), state)
            assert found <= {NAMES[who]}
            if found:
                took.append(minute)
                break
        else:
            took.append(WATCHED_MIN + 1)
    return took


def test_a_stable_fleet_finds_five_times_as_many_requests_within_minutes_and_twenty_times_at_once() -> None:
    assert np.median(minutes_to_find(5, state="stable", growth=1)) <= 3
    assert max(minutes_to_find(20, state="stable", growth=1)) == 1


def test_twenty_times_hidden_in_a_tenfold_launch_is_found_at_once() -> None:
    assert max(minutes_to_find(20, state="scaling", growth=10)) == 1


@pytest.mark.parametrize(("spread", "most"), [(0.0, 0.0), (0.5, 0.01)])
def test_a_launch_finds_nobody_in_it(spread: float, most: float) -> None:
    assert falsely_found(spread) <= most


def test_launches_that_spread_widely_are_cured_by_the_learned_margin() -> None:
    learned = Traffic(99)
    for _ in range(60):
        asked = learned.launch(1.2)
        for _ in range(10):
            learned.minute(asked, BASE * asked.sum(), "scaling")

    before, after = falsely_found(1.2), falsely_found(1.2, margins=learned.watch.margins)

    assert before >= 0.3
    assert after <= 0.1


def test_a_watch_that_looks_at_rates_would_have_found_everybody() -> None:
    """The planted fault: what the shares are for. Twice its usual requests is what each caller has in a proportional launch."""
    traffic = Traffic(0)
    asked = traffic.launch(0.0)
    counts = BASE * asked

    assert (counts > 2 * BASE * traffic.weights).all()
    assert traffic.minute(asked, BASE * asked.sum(), "scaling") == set()
