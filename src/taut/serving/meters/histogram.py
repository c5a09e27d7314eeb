"""A histogram of whole numbers that costs a bisection: a list of counts, and a sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

import msgspec

TIME_NS: Final = tuple(
    mantissa * 10**decade for decade in range(2, 10) for mantissa in (10, 15, 20, 30, 50, 70)
)
"""Upper bounds of the buckets of times: six a decade from 1 µs to 70 s, in nanoseconds."""
BATCH_ROWS: Final = tuple(2**power for power in range(11))
"""Upper bounds of the buckets of batch sizes, in rows."""


class HistogramReading(msgspec.Struct, frozen=True):
    """What a histogram holds. counts: of each bucket alone, the last is beyond the highest bound; total: the sum."""

    counts: tuple[int, ...]
    total: int

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, before: HistogramReading | None) -> HistogramReading:
        """Return what came to it since an earlier reading; all of it where it began anew in between, as a lane's does."""
        if before is None or any(new < old for old, new in zip(before.counts, self.counts, strict=True)):
            return self
        grown = tuple(new - old for old, new in zip(before.counts, self.counts, strict=True))
        return HistogramReading(grown, self.total - before.total)

    def cumulative(self) -> tuple[int, ...]:
        """Return how many values were at most each bound, and at the end how many there were."""
        return tuple(accumulate(self.counts))


class Histogram:
    """Counts values by bucket. A value on a bound belongs to the bucket that ends there, as Prometheus wants it.

    Not guaranteed: a consistent picture to another thread than the one that observes.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds: Final = bounds
        self.counts: Final = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Iterable[int]) -> None:
        for value in values:
            self.observe(value)

    def reading(self) -> HistogramReading:
        return HistogramReading(tuple(self.counts), self.total)


def quantile(bounds: Sequence[int], counts: Sequence[int], q: float) -> float | None:
    """Return the value below which a share `q` of the observations lies, 0 <= q <= 1; None when there are none.

    Within a bucket the values are taken as evenly spread, so that the answer is off by at most the bucket's width; what
    lies beyond the highest bound is taken to lie on it.
    """
    wanted = q * sum(counts)
    if not any(counts):
        return None
    before = 0
    low = 0
    for bound, count in zip(bounds, counts, strict=False):  # the last count has no bound
        if count and before + count >= wanted:
            return low + (bound - low) * max(0.0, wanted - before) / count
        before += count
        low = bound
    return float(bounds[-1])
