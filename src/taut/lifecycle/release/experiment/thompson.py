"""How a bandit shares out callers: by how likely each arm is the best one, with something left for every arm.

Thompson sampling draws an arm as often as it is likely to be the best. Weights are changed for all callers at once and seldom,
so that the draw is integrated: a weight is that probability. Source: Thompson 1933; Scott 2010 (A modern Bayesian look at the
multi-armed bandit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

_POINTS: Final = 160
_WIDE: Final = 8.0


class Weighed(NamedTuple):
    """What is believed of an arm's payoff, 0 to 1: its mean, and as how many outcomes it counts."""

    mean: float
    size: float


def weigh(some: Sequence[tuple[float, int, float]]) -> Weighed:
    """Put payoffs together, each as (weight, count, total).

    The weight is over the probability with which the unit was drawn to the arm: then an hour in which an arm had few callers
    counts as much as for the others, and what all arms share in it cancels (self-normalised importance weights; the size is
    that of Kish 1965).
    """
    mass = math.fsum(weight * count for weight, count, _ in some)
    if mass <= 0.0:
        return Weighed(0.5, 0.0)
    square = math.fsum(weight * weight * count for weight, count, _ in some)
    return Weighed(math.fsum(weight * total for weight, _, total in some) / mass, mass * mass / square)


def best_probabilities(arms: Sequence[Weighed], able: Sequence[bool]) -> list[float]:
    """Return how likely each arm has the highest mean, 0 for those that may not; by Beta posteriors over a uniform prior.

    Payoffs within 0 and 1 vary at most like those that are 0 or 1, so that the posteriors are at least as wide as they should be.
    """
    posteriors = [(1.0 + size * mean, 1.0 + size * (1.0 - mean)) for mean, size in arms]
    points = sorted({x for (a, b), may in zip(posteriors, able, strict=True) if may for x in _grid(a, b)})
    masses = [_masses(a, b, points) if may else [] for (a, b), may in zip(posteriors, able, strict=True)]
    below = [_below(one) for one in masses]
    found = []
    for arm, mass in enumerate(masses):
        chance = 0.0
        for at, part in enumerate(mass):
            for other, others in enumerate(below):
                if other != arm and others:
                    part *= others[at]
            chance += part
        found.append(chance)
    whole = sum(found)
    return [chance / whole for chance in found]


def shares_of(chances: Sequence[float], able: Sequence[bool], *, floor: float) -> tuple[float, ...]:
    """Return weights by these chances, at least `floor` for each arm that is able, 1 in all: whole hundredths, or the same for each where
    these would not do."""
    count = sum(able)
    least = max(1, math.ceil(100 * min(floor, 1.0 / count) - 1e-9))
    if least * count > 100:
        return tuple(1.0 / count if may else 0.0 for may in able)
    left = 100 - least * count
    exact = [left * chance if may else 0.0 for chance, may in zip(chances, able, strict=True)]
    parts = [int(one) for one in exact]
    byrest = sorted((at for at, may in enumerate(able) if may), key=lambda at: (parts[at] - exact[at], at))
    for at in byrest[: left - sum(parts)]:
        parts[at] += 1
    return tuple((part + least) / 100 if may else 0.0 for part, may in zip(parts, able, strict=True))


def _grid(a: float, b: float) -> list[float]:
    """Return points between which Beta(a, b) lies, all but."""
    mean = a / (a + b)
    spread = math.sqrt(mean * (1.0 - mean) / (a + b + 1.0))
    low, high = max(1e-9, mean - _WIDE * spread), min(1.0 - 1e-9, mean + _WIDE * spread)
    return [low + (high - low) * at / (_POINTS - 1) for at in range(_POINTS)]


def _masses(a: float, b: float, points: Sequence[float]) -> list[float]:
    """Return how much of Beta(a, b) lies between each two points, by its density in their middle."""
    middles = [(one + two) / 2 for one, two in pairwise(points)]
    logs = [(a - 1.0) * math.log(x) + (b - 1.0) * math.log1p(-x) for x in middles]
    top = max(logs)
    found = [
        math.exp(log - top) * (two - one) for log, (one, two) in zip(logs, pairwise(points), strict=True)
    ]
    whole = math.fsum(found)
    return [one / whole for one in found]


def _below(masses: Sequence[float]) -> list[float]:
    found, so_far = [], 0.0
    for mass in masses:
        found.append(so_far + mass / 2)
        so_far += mass
    return found
