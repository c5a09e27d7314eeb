"""What answers brought or cost, in bins by arm: guardrails of means, beside those of rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from taut.lifecycle.release.canary.plan import CanaryPlan
from taut.lifecycle.release.guardrails import Harm, PayoffState, add_amounts

Bins = tuple[tuple[int, ...], tuple[int, ...]]
"""Counts by bin, of the canary and of the baseline; empty where there are none."""
PAYOFF_BINS: Final = 64
TIME_NS: Final = tuple(
    mantissa * 10**decade for decade in range(2, 10) for mantissa in (10, 15, 20, 30, 50, 70)
)
"""Upper bounds of the buckets in which gateways tell times."""
_CAP: Final = 4.0
"""Up to so many times the live version's dearest hundredth an answer's cost counts: where the largest possible one is far away, nothing could be bet."""
_MARGINS: Final[dict[str, tuple[Harm, float, float]]] = {
    "outcome": ("down", 0.95, 0.8),
    "cost": ("up", 1.1, 1.5),
}
"""By guardrail: where harm lies, and the ratio to the live version's mean beyond which a canary is held, and ended."""


class Scale(NamedTuple):
    """What the bins of a guardrail stand for. amounts: of each bin. hold, end: ratios of means that are borne."""

    amounts: tuple[float, ...]
    harm: Harm
    hold: float
    end: float


class Amounts(msgspec.Struct, frozen=True, array_like=True):
    """Counts of one stage by bin, and the evidence for harm beyond each of the two margins."""

    canary: tuple[int, ...] = ()
    baseline: tuple[int, ...] = ()
    held: PayoffState = PayoffState()
    ended: PayoffState = PayoffState()


def payoff_bin(amount: float, most: float) -> int:
    """Return the bin of a payoff: 0 for none, else rounded up; those beyond `most` count as it.

    >>> payoff_bin(0.0, 10.0), payoff_bin(0.01, 10.0), payoff_bin(10.0, 10.0), payoff_bin(99.0, 10.0)
    (0, 1, 63, 63)
    """
    return math.ceil(min(max(amount / most, 0.0), 1.0) * (PAYOFF_BINS - 1))


def scales_of(plan: CanaryPlan, usual: int) -> dict[str, Scale]:
    """Return the scales of a plan's guardrails of means, and of `quality`. usual: the bucket of the dearest hundredth of the live version's model
    times, -1 while it is not known; costs are not compared until then.
    """
    found: dict[str, Scale] = {}
    if "quality" in plan.guardrails:
        found["quality"] = Scale((0.0, 1.0), "up", 1.0, 1.0)  # counted; judged by the label process
    if "outcome" in plan.guardrails:
        steps = tuple(at * plan.payoff_most / (PAYOFF_BINS - 1) for at in range(PAYOFF_BINS))
        found["outcome"] = Scale(steps, *_MARGINS["outcome"])
    if "cost" in plan.guardrails and usual >= 0:
        found["cost"] = Scale(_costs(plan.price, usual), *_MARGINS["cost"])
    return found


@lru_cache(maxsize=1024)
def _costs(price: tuple[float, float], usual: int) -> tuple[float, ...]:
    bounds = (0, *TIME_NS, TIME_NS[-1])
    cap_s = _CAP * TIME_NS[min(usual, len(TIME_NS) - 1)] / 1e9
    return tuple(price[0] + price[1] * min((low + high) / 2e9, cap_s) for low, high in pairwise(bounds))


def add_grown(state: Amounts, scale: Scale, grown: Bins, *, weight: float) -> Amounts:
    """Take what came to both arms in one interval."""
    canary, baseline = (one or (0,) * len(scale.amounts) for one in grown)
    if not any(canary) and not any(baseline):
        return state
    if scale.hold == scale.end:  # a rate, which the label process judges
        return Amounts(_sum(state.canary, canary), _sum(state.baseline, baseline))
    held, ended = (
        add_amounts(of, scale.amounts, canary, baseline, weight=weight, ratio=ratio, harm=scale.harm)
        for of, ratio in ((state.held, scale.hold), (state.ended, scale.end))
    )
    return Amounts(_sum(state.canary, canary), _sum(state.baseline, baseline), held, ended)


def mean_of(amounts: Sequence[float], counts: Sequence[int]) -> float:
    """Return the mean amount; 0 where there is none."""
    return sum(one * count for one, count in zip(amounts, counts, strict=False)) / max(1, sum(counts))


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(one, other, strict=True))) if one else other
