"""Amounts within bounds, such as revenue or cost: is the canary's mean worse than the split explains?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.lifecycle.release.guardrails.label import Harm, log_mean_exp

_BETS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)


class PayoffState(msgspec.Struct, frozen=True, array_like=True):
    """ln wealth of each bet, and how many payoffs of what sum there were."""

    logs: tuple[float, ...] = (0.0,) * len(_BETS)
    total: float = 0.0
    count: int = 0

    @property
    def log_e(self) -> float:
        return log_mean_exp(self.logs)


def add_payoffs(
    state: PayoffState, payoffs: Iterable[tuple[bool, float]], *, weight: float, bound: float
) -> PayoffState:
    """Take payoffs in order, each with whether it is the canary's, its unit's once: W = ∏ (1 + λ (A − w) h(Y)).

    h = (mean of those before − Y) / bound, cut to ±1: predictable and the greater the worse, so under "the canary does not
    earn less" W is a supermartingale from 1 for each λ, and so is their mean. |λ (A − w) h| stays below 1.
    bound: of a payoff, which lies between 0 and it. Raises InvalidInput for one that does not.
    """
    logs, total, count = list(state.logs), state.total, state.count
    for canary, payoff in payoffs:
        if not 0.0 <= payoff <= bound:
            raise InvalidInput(f"a payoff is {payoff}: declared are 0 to {bound}")
        mean = total / count if count else payoff
        worse = ((1.0 if canary else 0.0) - weight) * (mean - payoff) / bound
        logs = [so_far + math.log1p(bet * worse) for so_far, bet in zip(logs, _BETS, strict=True)]
        total, count = total + payoff, count + 1
    return PayoffState(tuple(logs), total, count)


def add_amounts(
    state: PayoffState,
    amounts: Sequence[float],
    canary: Sequence[int],
    baseline: Sequence[int],
    *,
    weight: float,
    ratio: float = 1.0,
    harm: Harm = "down",
) -> PayoffState:
    """Take the amounts of one interval by their bins: evidence that the canary's mean is below `ratio` times the baseline's (harm up: above).

    amounts: of each bin, from 0 to some bound. canary, baseline: how many amounts of each bin came in the interval. The canary's are divided by
    the ratio, then W = ∏ (1 + λ (A − w) h(Y)), h = (mean before the interval − Y) / bound, for harm up with the other sign: of
    amounts whose arm was drawn with probability w each factor's mean is at most 1 under the null, so W is a supermartingale from 1
    for each λ, and so is their mean. The first interval only tells the mean. Raises InvalidInput on a ratio that is not positive.
    Source: Waudby-Smith & Ramdas 2023 (betting on bounded means), with the split as what is bet on.
    """
    if not ratio > 0:
        raise InvalidInput(f"the ratio is {ratio}: it must be positive")
    bound = max(amounts) * max(1.0, 1.0 / ratio)
    logs = list(state.logs)
    if state.count and bound > 0:
        mean, sign = state.total / state.count, 1.0 if harm == "down" else -1.0
        for amount, k, n in zip(amounts, canary, baseline, strict=True):
            for count, part, of in ((k, 1.0 - weight, amount / ratio), (n, -weight, amount)):
                if count:  # of some sixty bins few are used in a second
                    worse = part * sign * (mean - of) / bound
                    logs = [
                        so_far + count * math.log1p(bet * worse)
                        for so_far, bet in zip(logs, _BETS, strict=True)
                    ]
    total = sum(of * (k + n) for of, k, n in zip(amounts, canary, baseline, strict=True))
    return PayoffState(tuple(logs), state.total + total, state.count + sum(canary) + sum(baseline))
