"""Canaries as they could have been, judged by what answers bring or cost: minutes of traffic over two arms, drawn from a seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.canaries import MINUTES, PER_MINUTE, Judged
from taut.lifecycle.release.canary.amounts import PAYOFF_BINS, TIME_NS, Scale, scales_of
from taut.lifecycle.release.canary.plan import CanaryPlan
from taut.lifecycle.release.guardrails import PayoffState, add_amounts

Draw = Callable[[np.random.Generator, int, float], npt.NDArray[np.int64]]
"""Returns how many of so many answers fall into each bin, of a version that is so many times as the live one."""
WEIGHT: Final = 0.1
BOUNDS: Final = np.array(TIME_NS)
PLAN: Final = CanaryPlan(steps=(WEIGHT,), guardrails=("outcome", "cost"), price=(0.0, 0.01))


def conversions(rng: np.random.Generator, count: int, times: float) -> npt.NDArray[np.int64]:
    """One caller in twenty buys."""
    bought = int(rng.binomial(count, 0.05 * times))
    found = np.zeros(PAYOFF_BINS, np.int64)
    found[0], found[-1] = count - bought, bought
    return found


def costs(rng: np.random.Generator, count: int, times: float) -> npt.NDArray[np.int64]:
    """Models take a lognormal time around 3 ms."""
    at = np.searchsorted(BOUNDS, rng.lognormal(15.0, 0.5, count) * times)
    return np.bincount(at, minlength=len(BOUNDS) + 1)


def usual_cost() -> int:
    """Return the bucket of the dearest hundredth of the live version's answers."""
    return int(np.searchsorted(BOUNDS, math.exp(15.0 + 2.326 * 0.5)))


def means_judged(name: str, draw: Draw, times: float, *, end: bool, runs: int, seed: int = 8) -> Judged:
    """Judge by the product's own rule at 5%, looked at each minute. end: beyond which margin, that which ends or that which holds."""
    scale = scales_of(PLAN, usual_cost())[name]
    found = [
        took
        for run in range(runs)
        if (took := _run(np.random.default_rng([seed, run]), draw, times, scale, end=end)) is not None
    ]
    return Judged(len(found) / runs, statistics.median(found) if found else math.nan)


def _run(rng: np.random.Generator, draw: Draw, times: float, scale: Scale, *, end: bool) -> int | None:
    state, canary = PayoffState(), round(PER_MINUTE * WEIGHT)
    for minute in range(1, MINUTES + 1):
        own, other = draw(rng, canary, times).tolist(), draw(rng, PER_MINUTE - canary, 1.0).tolist()
        ratio = scale.end if end else scale.hold
        state = add_amounts(state, scale.amounts, own, other, weight=WEIGHT, ratio=ratio, harm=scale.harm)
        if state.log_e >= math.log(20):
            return minute * canary
    return None
