"""Timing several forms of a model side by side, so that what slows the machine down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

ROUNDS_MIN: Final = 15
ROUNDS_MAX: Final = 400
_WARM: Final = 3


def interleaved_us(
    runs: Mapping[str, Callable[[], object]], *, budget_s: float
) -> tuple[dict[str, float], int]:
    """Return the median time of each run in microseconds, and how often each was timed.

    Each round times every run once, and begins with another: none always comes first, or after the slowest. Rounds
    are 15 at least and 400 at most, as many as fit the budget in between.
    """
    began = time.perf_counter()
    for run in runs.values():
        for _ in range(_WARM):
            run()
    round_s = (time.perf_counter() - began) / _WARM
    rounds = max(ROUNDS_MIN, min(ROUNDS_MAX, int(budget_s / max(round_s, 1e-6))))
    names = list(runs)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            runs[name]()
            seen[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times) * 1e6, 3) for name, times in seen.items()}, rounds
