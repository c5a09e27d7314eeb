"""Durations counted in buckets of equal relative width, so that the tail is as exact as the middle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from taut.core.errors import InvalidInput

_BITS: Final = 11
_HALF: Final = 1 << (_BITS - 1)
_EXACT: Final = 1 << _BITS


class Histogram:
    """Counts of durations, in whole microseconds; exact below 2,048, within 0.1% above.

    >>> found = Histogram()
    >>> for value in range(1, 1001):
    ...     found.record(value)
    >>> found.percentile(50), found.percentile(99.9), found.max
    (500, 999, 1000)

    Source: Gil Tene's HdrHistogram, with buckets that are kept only where something was counted.
    """

    def __init__(self) -> None:
        self._counts: Final[dict[int, int]] = {}
        self.count = 0
        self.total_us = 0
        self.max = 0

    def record(self, value_us: int) -> None:
        """Count one duration; one below zero counts as zero."""
        value = max(value_us, 0)
        shift = value.bit_length() - _BITS
        index = value if shift <= 0 else shift * _HALF + (value >> shift)
        self._counts[index] = self._counts.get(index, 0) + 1
        self.count += 1
        self.total_us += value
        self.max = max(self.max, value)

    @property
    def mean(self) -> float:
        return self.total_us / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """Return the duration that so many percent of the counted ones did not pass; 0 where nothing was counted.

        Raises InvalidInput outside of 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise InvalidInput(f"percentile {percent}: choose 0 to 100")
        wanted = max(1, math.ceil(self.count * percent / 100 - 1e-9))
        seen = 0
        for index in sorted(self._counts):
            seen += self._counts[index]
            if seen >= wanted:
                return min(_highest(index), self.max)
        return 0

    def bars(self, *, per_doubling: int = 1) -> Iterator[tuple[int, int]]:
        """Yield (up to so many microseconds, count) in steps of a doubling, or finer, from the first to the last."""
        found: dict[int, int] = {}
        for index, count in self._counts.items():
            step = math.ceil(math.log2(max(1, _highest(index))) * per_doubling - 1e-9)
            found[step] = found.get(step, 0) + count
        for step in range(min(found, default=0), max(found, default=-1) + 1):
            yield math.ceil(2 ** (step / per_doubling)), found.get(step, 0)


def _highest(index: int) -> int:
    """Return the largest duration that is counted under an index."""
    if index < _EXACT:
        return index
    shift = index // _HALF - 1
    return ((index - shift * _HALF + 1) << shift) - 1
