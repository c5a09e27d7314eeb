"""Evidence that grows while one looks: an e-detector for the mean of a bounded quantity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_REACH: Final = (0.25, 0.5, 0.8)  # of the way from the bound to 1: from faint to blatant
BETS: Final = len(_REACH)
_HEADROOM: Final = 5.0


def bets(bound: float) -> tuple[float, ...]:
    """Return how much is bet against a mean of at most `bound`, for each of several that may be true instead. 0 < bound < 1."""
    return tuple(reach / bound for reach in _REACH)


def step(sums: list[float], z: float, bound: float, stakes: Sequence[float], alarm: float) -> float:
    """Take one observation into `sums`, logarithms that begin at -inf, and return the logarithm of the evidence.

    z: in [0, 1]. bound: what its mean is at most, given all that was seen before, of those who do nothing wrong.
    For each alternative p the sum is of the betting wealth since every moment before now, R = (1 + R)·(1 + λ(z − bound)) with
    λ = (p − bound)/(bound(1 − bound)), so that who begins to misbehave late is found as fast. Returned is the mean over p.
    Guarantee: while the mean is at most the bound, that after n observations is n at most in expectation, so that a look at
    each finds more than exp(alarm) with a chance of at most n/exp(alarm), however z depends on the past. The sums do not
    grow far beyond `alarm`, so that they fall again.
    Source: Shin, Ramdas & Rinaldo, E-detectors, 2024; Waudby-Smith & Ramdas, Estimating means by betting, 2024.
    """
    for at, stake in enumerate(stakes):
        before = sums[at]
        raised = math.log1p(math.exp(before)) if before < 30 else before
        sums[at] = min(raised + math.log1p(stake * (z - bound)), alarm + _HEADROOM)
    top = max(sums)
    return top + math.log(sum(math.exp(one - top) for one in sums) / len(sums))


def fresh() -> list[float]:
    """Return the sums of somebody of whom nothing was seen."""
    return [-math.inf] * BETS
