"""Payoffs within bounds, such as revenue: does the canary earn less than the split explains?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.lifecycle.release.guardrails.label import log_mean_exp

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
