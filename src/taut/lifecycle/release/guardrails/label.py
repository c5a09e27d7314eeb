"""The label e-process: on which arm do bad events fall, and is that more than the split explains?

Given that a bad event happened, it fell on the canary with probability θ(r, w) = w·r / (w·r + 1 − w), where w is the part
of the traffic that the canary has and r the ratio of its bad-event rate to the baseline's, *whatever that rate is now*. So
a shock that both arms share, a busy hour and a quiet night are no evidence, and need no model.

Guarantee: E is a nonnegative supermartingale from 1 while r is at most `ratio` (harm up) or at least it (harm down), so it
ever reaches 1/α with probability at most α, looked at as often as one likes. It holds for events whose arm was drawn by
itself: one unit that fails a thousand times is one event, and whoever counts has to see to that.
Sources: Ville 1939; Lindon & Malek 2022 (anytime-valid inference for multinomial counts); Grünwald, de Heide & Koolen 2024
(safe testing); Howard et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

import msgspec

from taut.core.errors import InvalidInput

Harm = Literal["up", "down"]
"""Whether harm shows as more events (errors) or as fewer (conversions)."""

_UP: Final = (1.15, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0)
_DOWN: Final = (1.05, 1.1, 1.2, 1.35, 1.6, 2.0)


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """Bad events by arm while the weight was one. canary, baseline: counts ≥ 0, or sums of parts of events. weight: of the canary, 0 < weight < 1.

    A guardrail's whole state is its stages: whole numbers, so it is resumed exactly, and its size is that of the plan.
    """

    weight: float
    canary: float = 0
    baseline: float = 0

    def plus(self, canary: float, baseline: float) -> Stage:
        return Stage(self.weight, self.canary + canary, self.baseline + baseline)


def label_log_e(
    stages: Sequence[Stage], *, ratio: float = 1.0, harm: Harm = "up", restarts: int = 1
) -> float:
    """Return ln E for "the canary's rate is at most `ratio` times the baseline's" (harm down: at least).

    stages: in order of time. restarts: how many processes are averaged, each begun anew with a stage (the first `restarts`
    of them; those whose stage is not there yet count as 1): harm that begins late is then not held against what was good
    before. 1 pools all stages in one process. Fix it before the start.
    Raises InvalidInput on a weight outside (0, 1) or a ratio that is not positive.
    """
    begun = min(max(restarts, 1), len(stages))
    sums: list[float] = []
    processes: list[float] = []
    for at in range(len(stages) - 1, -1, -1):
        stage = stages[at]
        ones, others = _steps(ratio, stage.weight, harm)
        canary, baseline = stage.canary, stage.baseline
        sums = sums or [0.0] * len(ones)
        if canary or baseline:  # this runs for every guardrail of every release each second
            sums = [
                known + canary * one + baseline * other
                for known, one, other in zip(sums, ones, others, strict=True)
            ]
        if at < begun:
            processes.append(log_mean_exp(sums))
    processes += [0.0] * (max(restarts, 1) - begun)
    return log_mean_exp(processes)


def two_sided_log_e(stages: Sequence[Stage], *, ratio: float = 1.0) -> float:
    """Return ln E for "the ratio is exactly this": of all units at ratio 1 it checks that the split is what it claims."""
    return log_mean_exp(
        [label_log_e(stages, ratio=ratio, harm="up"), label_log_e(stages, ratio=ratio, harm="down")]
    )


def latency_log_e(quantiles: Sequence[Sequence[Stage]], *, ratio: float = 1.0, restarts: int = 1) -> float:
    """Return ln E of answers beyond frozen reference times: the mean over these times of each one's label process.

    quantiles: for each reference time the stages of answers that took longer. The times must be fixed before what is
    counted; which, decides only how soon harm is found.
    """
    return log_mean_exp([label_log_e(one, ratio=ratio, restarts=restarts) for one in quantiles])


def paired_log_e(shadow_only: int, live_only: int, *, ratio: float = 1.0) -> float:
    """Return ln E of a shadow: of pairs where one arm alone was bad, each side is as likely; the ratio is that of odds."""
    return label_log_e((Stage(0.5, shadow_only, live_only),), ratio=ratio)


def ratio_bounds(stages: Sequence[Stage], *, alpha: float) -> tuple[float, float]:
    """Return the bounds between which the ratio lies with probability 1 − alpha, at all times at once.

    They are the ends of {ratio : the two-sided E against it is below 1/alpha}; (0, inf) where nothing is known.
    """
    limit = -math.log(alpha)
    guess = _most_likely(stages)
    return _bound(stages, guess, limit, down=True), _bound(stages, guess, limit, down=False)


def _bound(stages: Sequence[Stage], guess: float, limit: float, *, down: bool) -> float:
    step = 0.5 if down else 2.0
    inside, outside = guess, guess * step
    while two_sided_log_e(stages, ratio=outside) < limit:
        inside, outside = outside, outside * step
        if not _LEAST < outside < 1 / _LEAST:
            return 0.0 if down else math.inf
    for _ in range(40):
        middle = math.sqrt(inside * outside)
        if two_sided_log_e(stages, ratio=middle) < limit:
            inside = middle
        else:
            outside = middle
    return outside


_LEAST: Final = 1e-6


def _most_likely(stages: Sequence[Stage]) -> float:
    """Return about the ratio under which these counts are likeliest: where few are known, one near it that is finite."""
    low, high = 1e-3, 1e3
    seen = sum(stage.canary for stage in stages) + 0.5
    for _ in range(60):
        middle = math.sqrt(low * high)
        expected = sum((stage.canary + stage.baseline + 1) * theta(middle, stage.weight) for stage in stages)
        low, high = (middle, high) if expected < seen else (low, middle)
    return math.sqrt(low * high)


def theta(ratio: float, weight: float) -> float:
    """Return the probability that a bad event falls on the canary."""
    return weight * ratio / (weight * ratio + 1.0 - weight)


@lru_cache(maxsize=4096)
def _steps(ratio: float, weight: float, harm: Harm) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what one bad event adds to ln L of each alternative: on the canary, and on the baseline."""
    if not 0.0 < weight < 1.0:
        raise InvalidInput(f"the canary's weight is {weight}: it must lie between 0 and 1, both excluded")
    if not (ratio > 0.0 and math.isfinite(ratio)):
        raise InvalidInput(f"the ratio is {ratio}: it must be positive")
    null = theta(ratio, weight)
    others = [ratio * by for by in _UP] if harm == "up" else [ratio / by for by in _DOWN]
    found = [theta(other, weight) for other in others]
    ones = tuple(math.log(one / null) for one in found)
    return ones, tuple(math.log1p(-one) - math.log1p(-null) for one in found)


def log_mean_exp(values: Sequence[float]) -> float:
    """Return the logarithm of the mean of exp(values)."""
    if not values:
        return 0.0
    highest = max(values)
    return highest + math.log(sum([math.exp(value - highest) for value in values]) / len(values))
