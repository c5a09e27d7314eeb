"""How the arms stand: what became true of their answers, and how surely each is better or worse than the control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from taut.lifecycle.release.experiment.plan import ExperimentPlan
from taut.lifecycle.release.experiment.thompson import Weighed, best_probabilities, weigh
from taut.lifecycle.release.guardrails import Stage, ratio_bounds

Verdict = Literal["control", "better", "worse", "open", "stopped"]


class PayoffSum(NamedTuple):
    """Payoffs of one arm under one weight in one interval of time: `size` of them, `total` in all, from `at_us` on."""

    arm: int
    share: float
    at_us: int
    size: int
    total: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one arm stands. mean: of the metric, in its own unit. low, high: between them lies the ratio of its rate to the control's,
    of what the metric counts, surely and for all arms at once; None where it is not bounded. best: how likely it is the best arm
    (of a bandit). says: the same for people.
    """

    version: str
    weight: float
    outcomes: int
    mean: float | None
    verdict: Verdict
    low: float | None = None
    high: float | None = None
    best: float | None = None
    says: str = ""


def standings(
    plan: ExperimentPlan,
    weights: Sequence[float],
    stopped: Sequence[str],
    sums: Sequence[PayoffSum],
    *,
    now_us: int,
) -> tuple[Standing, ...]:
    """Say how each arm stands. weights: now. stopped: why an arm was stopped, nothing for one that was not."""
    counts = [sum(one.size for one in sums if one.arm == arm) for arm in range(len(plan.arms))]
    totals = [sum(one.total for one in sums if one.arm == arm) for arm in range(len(plan.arms))]
    chances: Sequence[float | None] = [None] * len(plan.arms)
    if plan.kind == "bandit":
        chances = best_probabilities(weighed(plan, sums, now_us=now_us), [not why for why in stopped])
    found = []
    for arm, version in enumerate(plan.arms):
        low, high = (0.0, math.inf) if not arm or plan.kind != "ab" else _bounds(plan, counts, totals, arm)
        verdict = _verdict(plan, arm, stopped[arm], low, high)
        found.append(
            Standing(
                version=version, weight=weights[arm], outcomes=counts[arm],
                mean=_unit(plan, totals[arm] / counts[arm]) if counts[arm] else None,
                verdict=verdict, low=low or None, high=None if math.isinf(high) else high, best=chances[arm],
                says=stopped[arm] or _said(plan, verdict, low, high, chances[arm]),
            )
        )  # fmt: skip
    return tuple(found)


def weighed(plan: ExperimentPlan, sums: Sequence[PayoffSum], *, now_us: int) -> tuple[Weighed, ...]:
    """Return what is believed of each arm, what is long ago counting less."""
    found = []
    for arm in range(len(plan.arms)):
        of = [one for one in sums if one.arm == arm and one.share > 0]
        ages = [max(0.0, (now_us - one.at_us) / 1e6) for one in of]
        halves = [age / plan.memory_s if plan.memory_s else 0.0 for age in ages]
        found.append(
            weigh([(0.5**by / one.share, one.size, one.total) for by, one in zip(halves, of, strict=True)])
        )
    return tuple(found)


def _bounds(
    plan: ExperimentPlan, counts: Sequence[int], totals: Sequence[float], arm: int
) -> tuple[float, float]:
    """Return between what the ratio of the arm's rate to the control's surely lies.

    A payoff y within 0 and 1 is taken as y events. For each factor f of the label process ln(1 + y(f − 1)) is at least y ln f, so
    that the evidence is at most that of the bet on the payoff itself, which is a supermartingale: the bounds hold, a little wide.
    The pair's weight is the plan's at all times, since an arm that is stopped leaves the others' ratios as they are.
    """
    events = [total if plan.gains else count - total for count, total in zip(counts, totals, strict=True)]
    pair = plan.weights[arm] / (plan.weights[arm] + plan.weights[0])
    if not events[arm] + events[0]:
        return 0.0, math.inf
    return ratio_bounds((Stage(pair, events[arm], events[0]),), alpha=plan.each)


def _verdict(plan: ExperimentPlan, arm: int, stopped: str, low: float, high: float) -> Verdict:
    if stopped:
        return "stopped"
    if not arm:
        return "control"
    more, less = low > 1.0, high < 1.0
    if more or less:
        return "better" if more == plan.gains else "worse"
    return "open"


def _said(plan: ExperimentPlan, verdict: Verdict, low: float, high: float, chance: float | None) -> str:
    if plan.kind == "bandit":
        return "" if chance is None else f"the best arm with probability {chance:.0%}"
    if verdict == "control":
        return "what the others are compared with"
    what = {"right": "wrong answers", "error": "error", "reward": "reward"}[plan.metric]
    upper = "" if math.isinf(high) else f" to {high:.3g}"
    between = f"{'at least ' if math.isinf(high) else ''}{low:.3g}{upper} times the control's"
    return f"{what}: {between}, " + ("which may be the same" if verdict == "open" else f"surely {verdict}")


def _unit(plan: ExperimentPlan, mean: float) -> float:
    if plan.metric == "error":
        return (1.0 - mean) * plan.high
    return plan.low + mean * (plan.high - plan.low) if plan.metric == "reward" else mean
