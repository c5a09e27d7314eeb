"""What gateways told of a shadow, put together: exactly once, whatever is told twice or by a process that died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary.counts import Pair

CALLERS_MOST: Final = 64
Counts = tuple[int, ...]


class PairCounts(msgspec.Struct, frozen=True, array_like=True):
    """Counters that only grow; see `taut.serving.trials.ShadowReading`. Of two the first is the shadow's."""

    answered: int = 0
    dropped: int = 0
    differ: int = 0
    failed: Pair = (0, 0)
    moved: tuple[Counts, Counts] = ((), ())
    slower: tuple[Counts, Counts] = ((), ())
    times: Counts = ()

    def plus(self, other: PairCounts) -> PairCounts:
        return self._with(other, 1)

    def minus(self, other: PairCounts) -> PairCounts:
        return self._with(other, -1)

    def _with(self, other: PairCounts, sign: int) -> PairCounts:
        return PairCounts(
            self.answered + sign * other.answered,
            self.dropped + sign * other.dropped,
            self.differ + sign * other.differ,
            (self.failed[0] + sign * other.failed[0], self.failed[1] + sign * other.failed[1]),
            (_sum(self.moved[0], other.moved[0], sign), _sum(self.moved[1], other.moved[1], sign)),
            (_sum(self.slower[0], other.slower[0], sign), _sum(self.slower[1], other.slower[1], sign)),
            _sum(self.times, other.times, sign),
        )


class PairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process tells. why: for what reason the version is not ready there; empty where it is."""

    process: str
    why: str = ""
    callers: Counts = ()
    counts: PairCounts = PairCounts()


class PairTally(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a shadow. callers: a sample of who asked. heard: by process, how far it had counted when it was heard last."""

    counts: PairCounts = PairCounts()
    callers: Counts = ()
    heard: dict[str, PairCounts] = {}


def add_pairs(tally: PairTally, reports: Sequence[PairReport]) -> PairTally:
    """Take what processes told; the same again adds nothing."""
    counts, heard = tally.counts, dict(tally.heard)
    for report in reports:
        before = heard.get(report.process, PairCounts())
        anew = (report.counts.answered, report.counts.dropped) < (before.answered, before.dropped)
        counts = counts.plus(report.counts if anew else report.counts.minus(before))
        heard[report.process] = report.counts
    callers = sorted({*tally.callers, *(mark for one in reports for mark in one.callers)})[:CALLERS_MOST]
    return structs.replace(tally, counts=counts, heard=heard, callers=tuple(callers))


def _sum(one: Counts, other: Counts, sign: int) -> Counts:
    if not other:
        return one
    return tuple(a + sign * b for a, b in zip(one or (0,) * len(other), other, strict=True))
