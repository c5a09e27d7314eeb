"""What a gateway counts of a shadow: the same request before both versions, once the live one has answered."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from taut.serving.meters import TIME_NS
from taut.serving.runtime import Outputs
from taut.serving.trials.reading import ShadowReading
from taut.serving.trials.sketch import Sketch
from taut.serving.trials.split import BINS, bin_of

CALLERS_MOST: Final = 64
_TOLD_MOST: Final = 4096
_MINUTE_US: Final = 60_000_000
_APART: Final = 0.1
"""Two values are the same decision where they lie within this part of the larger one of one another."""


class Pairs:
    """What a gateway counts of one shadow; kept over epochs. One event loop owns it.

    Of a request with many rows the first row counts. A pair where both versions fail, or neither does, says nothing of errors: only those are
    told where one alone did, each caller's once a minute and side, so that a storm of repetitions is one event.
    """

    def __init__(self, release: str) -> None:
        self.release: Final = release
        self.dropped = 0
        self.answered = 0
        self.raced = 0  # pairs whose models could be timed: every second one is
        self._differ = 0
        self._failed: Final = [0, 0]
        self._moved: Final = ([0] * (BINS - 1), [0] * (BINS - 1))
        self._slower: Final = ([0] * len(TIME_NS), [0] * len(TIME_NS))
        self._times: Final = [0] * (len(TIME_NS) + 1)
        self._callers: Final = Sketch(CALLERS_MOST)
        self._minute = 0
        self._told: Final[set[tuple[int, bool]]] = set()

    def see(self, mark: int) -> None:
        """Count who asked. mark: of the caller, as `lots_of` gives it."""
        self._callers.add(mark, True)

    def compare(self, live: Outputs, shadow: Outputs) -> None:
        """Count a pair that both versions answered."""
        self.answered += 1
        self._differ += not _same(live, shadow)
        low, high = _bins(live, shadow)
        _cross(self._moved, low, high)

    def fail(self, mark: int, *, shadow: bool, now_us: int) -> None:
        """Count a pair in which one version alone failed. shadow: whether it was the shadow."""
        minute = now_us // _MINUTE_US
        if minute != self._minute or len(self._told) >= _TOLD_MOST:
            self._minute = minute
            self._told.clear()
        if (mark, shadow) not in self._told:
            self._told.add((mark, shadow))
            self._failed[not shadow] += 1

    def time(self, live_ns: int, shadow_ns: int) -> None:
        """Count how long both models took over the same request, under the same circumstances."""
        one, other = bisect_left(TIME_NS, live_ns), bisect_left(TIME_NS, shadow_ns)
        self._times[one] += 1
        _cross(self._slower, one, other)

    def reading(self, *, ready: bool, fault: str) -> ShadowReading:
        return ShadowReading(
            release=self.release, ready=ready, fault=fault, answered=self.answered, dropped=self.dropped,
            differ=self._differ, failed=(self._failed[0], self._failed[1]),
            moved=(tuple(self._moved[0]), tuple(self._moved[1])),
            slower=(tuple(self._slower[0]), tuple(self._slower[1])), times=tuple(self._times),
            callers=self._callers.arms()[0],
        )  # fmt: skip


def _cross(counts: tuple[list[int], list[int]], live: int, shadow: int) -> None:
    """Count at each edge between both buckets that the shadow alone lies beyond it, or the live version alone."""
    for edge in range(min(live, shadow), max(live, shadow)):
        counts[shadow < live][edge] += 1


def _same(live: Outputs, shadow: Outputs) -> bool:
    if live.values:
        one, other = live.values[0], shadow.values[0]
        return abs(one - other) <= _APART * max(abs(one), abs(other))
    return list(live.labels[:1]) == list(shadow.labels[:1])


def _bins(live: Outputs, shadow: Outputs) -> tuple[int, int]:
    """Return the bins of both predictions; of values, which have no scale of their own, only which one is surely higher."""
    if live.probabilities:
        return bin_of(live.probabilities[0]), bin_of(shadow.probabilities[0])
    if _same(live, shadow):
        return 0, 0
    return (0, 1) if shadow.values[0] > live.values[0] else (1, 0)
