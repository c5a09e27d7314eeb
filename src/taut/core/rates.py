"""A limit that stands by itself: is the rate of bad events above p0, whatever the baseline does?

It pages, and never rolls back alone: an incident that both arms share fires it on healthy canaries too.
"""

from __future__ import annotations

import math
from typing import Final

from taut.core.errors import InvalidInput

_PRIOR: Final = (0.5, 0.5)
_TINY: Final = 1e-300


def absolute_log_e(bad: int, total: int, *, limit: float) -> float:
    """Return ln E for "the rate is at most `limit`": a Beta(½, ½) prior cut to the rates above it, against `limit`.

    bad of total, counted since the start. Each rate above the limit is, against the limit, a likelihood ratio whose mean
    grows with the true rate and is 1 at the limit, so their mixture is a supermartingale for every rate up to it (Ville).
    Raises InvalidInput on a limit outside (0, 1) or more bad events than all.
    """
    if not 0.0 < limit < 1.0:
        raise InvalidInput(f"the limit is {limit}: a rate between 0 and 1, both excluded, is wanted")
    if not 0 <= bad <= total:
        raise InvalidInput(f"{bad} of {total} events are bad: that cannot be")
    a, b = _PRIOR
    after = _log_beta(a + bad, b + total - bad) + math.log(_above(limit, a + bad, b + total - bad))
    before = _log_beta(a, b) + math.log(_above(limit, a, b))
    return after - before - bad * math.log(limit) - (total - bad) * math.log1p(-limit)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _above(x: float, a: float, b: float) -> float:
    """Return how likely Beta(a, b) is above x; at least the smallest number, so that it has a logarithm."""
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b))
    if x < (a + 1.0) / (a + b + 2.0):
        return max(_TINY, 1.0 - front * _fraction(x, a, b) / a)
    return max(_TINY, front * _fraction(1.0 - x, b, a) / b)


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function (Lentz 1976)."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    result = d
    for m in range(1, 400):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            result *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return result


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
