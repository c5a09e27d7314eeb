"""Whether the canary predicts otherwise than the baseline: evidence that it does, and by how much at least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

from taut.core.errors import InvalidInput

_PRIOR: Final = 50.0


class BinState(msgspec.Struct, frozen=True, array_like=True):
    """Units by arm and bin of the prediction so far, and ln E."""

    canary: tuple[int, ...]
    baseline: tuple[int, ...]
    log_e: float = 0.0


def empty_bins(count: int = 10) -> BinState:
    return BinState((0,) * count, (0,) * count)


def add_bins(state: BinState, canary: Sequence[int], baseline: Sequence[int], *, weight: float) -> BinState:
    """Take the counts of one interval: E = ∏ q(arm | bin) / P(arm), q from the counts strictly before it.

    Under the null the arm is drawn by the weight in every bin, so each factor has mean 1: E is a martingale from 1,
    whatever the distribution is and however it moves, as long as both arms share it.
    Raises InvalidInput where the bins are others than before.
    """
    if not len(canary) == len(baseline) == len(state.canary):
        raise InvalidInput(
            f"{len(canary)} and {len(baseline)} bins, {len(state.canary)} before: keep the bins of the start"
        )
    log_e = state.log_e
    for k, n, new_k, new_n in zip(state.canary, state.baseline, canary, baseline, strict=True):
        q = (k + _PRIOR * weight) / (k + n + _PRIOR)
        log_e += new_k * math.log(q / weight) + new_n * math.log((1.0 - q) / (1.0 - weight))
    return BinState(
        tuple(one + new for one, new in zip(state.canary, canary, strict=True)),
        tuple(one + new for one, new in zip(state.baseline, baseline, strict=True)),
        log_e,
    )


def distance_at_least(state: BinState, *, alpha: float) -> float:
    """Return a lower bound on the Kolmogorov distance of the arms that holds at all times at once with 1 − alpha; ≥ 0.

    Each arm's empirical distribution is within a time-uniform band of its own, half of alpha each. Holds where an arm's
    predictions are drawn alike over time; bins can only make the distance smaller.
    Source: Howard & Ramdas 2022 (sequential estimation of quantiles), the time-uniform DKW band.
    """
    totals = sum(state.canary), sum(state.baseline)
    if not all(totals):
        return 0.0
    gap = max(
        abs(one / totals[0] - other / totals[1])
        for one, other in zip(accumulate(state.canary), accumulate(state.baseline), strict=True)
    )
    return max(0.0, gap - sum(_band(total, alpha / 2) for total in totals))


def _band(count: int, alpha: float) -> float:
    return 0.85 * math.sqrt((math.log(math.log(math.e * count)) + 0.8 * math.log(1612 / alpha)) / count)
