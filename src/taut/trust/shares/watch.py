"""The share detector: a cumulative sum for each caller, on his part of the traffic and not on how much there is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.trust.shares.baseline import Baseline
from taut.trust.shares.margin import FleetState, Margins

NEWCOMERS: Final = ""
"""Whom callers without a baseline are counted as, together."""

_KNOWN: Final = "known"
_RATIOS: Final = (1.5, 3.0, 6.0)
_NEGLIGIBLE: Final = 0.001
_MOST: Final = 0.95  # of a usual share: whoever asks alone cannot be told from himself
_EXPECTED: Final = 20.0
_CALM_MINUTES: Final = 5
_RECALL: Final = 2.0
_HOUR_S: Final = 3600.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One caller who takes more of the traffic than is his.

    since_s: the minute of the alarm, since 1970. share, usual: parts of all requests, now and as a rule. multiplier: the one
    over the other. margin: what it was held against.
    """

    caller: str
    since_s: float
    state: FleetState
    share: float
    usual: float
    multiplier: float
    margin: float


def times(share: float, factor: float) -> float:
    """Return the share of a caller who asks `factor` times as often, while the others ask as before."""
    odds = share / (1 - share) * factor
    return odds / (1 + odds)


def multiple(share: float, usual: float) -> float:
    """Return how many times as often as usual a caller asks, if the others ask as before; at least 0.001."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return max(share / (1 - share) * (1 - usual) / usual, 1e-3)


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole hour taught. hour: since 1970. known, strangers: requests as they were learned, by caller."""

    hour: int
    known: dict[str, float]
    strangers: dict[str, float]


class _Sums:
    __slots__ = ("calm", "since_s", "values")

    def __init__(self) -> None:
        self.values = [0.0] * len(_RATIOS)
        self.since_s: float | None = None
        self.calm = 0


class ShareWatch:
    """Finds callers whose share of the traffic grew beyond the margin of the fleet's state. Groups (plan, network, endpoint)
    are callers too: give each kind a watch of its own.

    For a usual share σ and the margin r0, let θ be the share of a caller who asks r0 times as often while the others ask as
    before (his odds σ/(1−σ) grow r0 times; θ ≈ σ·r0 where σ is small), and θr the same for r of (1.5, 3, 6)·r0. Each minute with
    x of N requests adds x·ln(θr/θ) + (N−x)·ln((1−θr)/(1−θ)) to a sum that is never below 0; the alarm is at ln(minutes · sums),
    so that those who stay within the margin raise a false one less often than once in `false_alarm_minutes`. Shares below a thousandth are
    taken as that: less is no danger to anybody. Callers without a baseline are one caller together, `NEWCOMERS`.

    What goes beyond the margin is not learned as usual, and of whoever is found nothing beyond what was usual, until somebody
    says with `accept` that it is right. Not guaranteed: finding who grows slowly, over
    weeks, as honest callers do; or one of many who share the abuse below the margin each: watch their group.
    Source: Page 1954; Lorden 1971 for the threshold.
    """

    def __init__(self, *, false_alarm_minutes: float = 10_080.0, callers_max: int = 10_000) -> None:
        if false_alarm_minutes < 1:
            raise InvalidInput(f"false_alarm_minutes is {false_alarm_minutes}: give at least 1")
        self.baseline: Final = Baseline(callers_max=callers_max)
        self.margins: Final = Margins()
        self._strangers: Final = Baseline(callers_max=2)
        self._minutes: Final = false_alarm_minutes
        self._sums: Final[dict[str, _Sums]] = {}

    def observe(self, at_s: float, counts: Mapping[str, int], state: FleetState) -> tuple[Finding, ...]:
        """Take one minute of requests by caller; return who is found now, also those found before whose share stays.

        at_s: when the minute began, since 1970, rising. Costs time in proportion to the callers that were active or are
        not forgiven yet. Before the first whole hour nothing is usual, and nothing is found.
        """
        counts = {caller: count for caller, count in counts.items() if count}
        total = sum(counts.values())
        if not total or not len(self.baseline):
            self.baseline.learn(at_s, counts)
            return ()
        usual = {caller: self.baseline.share(caller, at_s) for caller in counts.keys() | self._sums.keys()}
        together = self._together(at_s, counts, usual)
        margin = self.margins.margin(state, callers=len(self.baseline))
        alarm = math.log(self._minutes * max(1, len(self.baseline)) * len(_RATIOS))
        findings = []
        for caller in together.keys() | self._sums.keys():
            known = usual.get(caller)
            if known is None:  # newcomers, before it was ever seen how many there are
                continue
            share = min(max(known, _NEGLIGIBLE), _MOST)
            found = self._look(caller, at_s, together.get(caller, 0), total, share, margin, alarm, state)
            if found is not None:
                findings.append(found)
        self._learn(at_s, counts, usual, total, margin, state)
        return tuple(sorted(findings, key=lambda one: -one.share))

    def rest(self) -> None:
        """Forget what added up against anybody, after a time in which nobody asked."""
        self._sums.clear()

    def taught(self) -> Hour | None:
        """Return what the last hour that is over taught; None before there was one."""
        known, strangers = self.baseline.closed, self._strangers.closed
        if known is None:
            return None
        same = strangers is not None and strangers[0] == known[0]
        return Hour(
            hour=known[0], known=known[1], strangers=strangers[1] if same and strangers is not None else {}
        )

    def recall(self, hour: Hour) -> None:
        """Learn what an hour taught before; hours come in their order, ahead of anything else."""
        self.baseline.learn(hour.hour * _HOUR_S, hour.known)
        if hour.strangers:
            self._strangers.learn(hour.hour * _HOUR_S, hour.strangers)

    def accept(self, caller: str) -> None:
        """Forget what was usual for a caller: he begins anew, as a newcomer, and what he asks now will be usual."""
        self.baseline.forget(caller)
        self._sums.pop(caller, None)

    def _together(
        self, at_s: float, counts: Mapping[str, int], usual: dict[str, float | None]
    ) -> dict[str, int]:
        """Return the counts with newcomers as one, and their usual share in `usual`."""
        found = {caller: count for caller, count in counts.items() if usual[caller] is not None}
        found[NEWCOMERS] = sum(counts.values()) - sum(found.values())
        usual[NEWCOMERS] = self._strangers.share(NEWCOMERS, at_s)
        return found

    def _look(
        self,
        caller: str,
        at_s: float,
        count: int,
        total: int,
        usual: float,
        margin: float,
        alarm: float,
        state: FleetState,
    ) -> Finding | None:
        """Add a minute to a caller's sums, and say whether he is found."""
        sums = self._sums.get(caller)
        if sums is None:
            if count <= times(usual, margin) * total:
                return None  # each of his sums would stay at 0
            sums = self._sums[caller] = _Sums()
        base = times(usual, margin)
        for at, ratio in enumerate(_RATIOS):
            raised = times(usual, margin * ratio)
            step = count * math.log(raised / base) + (total - count) * math.log((1 - raised) / (1 - base))
            sums.values[at] = min(max(0.0, sums.values[at] + step), _RECALL * alarm)
        over = max(sums.values) >= alarm
        if over and sums.since_s is None:
            sums.since_s = at_s
        sums.calm = 0 if over else sums.calm + 1
        if sums.calm >= _CALM_MINUTES:
            sums.since_s = None
            if not any(sums.values):
                del self._sums[caller]
        if sums.since_s is None:
            return None
        share = count / total
        return Finding(
            caller=caller, since_s=sums.since_s, state=state, share=share, usual=usual,
            multiplier=multiple(share, usual), margin=margin,
        )  # fmt: skip

    def _learn(
        self,
        at_s: float,
        counts: Mapping[str, int],
        usual: Mapping[str, float | None],
        total: int,
        margin: float,
        state: FleetState,
    ) -> None:
        learned: dict[str, float] = {}
        strange = 0
        for caller, count in counts.items():
            share = usual[caller]
            if share is None:
                learned[caller] = count
                strange += count
                continue
            share = min(max(share, _NEGLIGIBLE), _MOST)
            found = (sums := self._sums.get(caller)) is not None and sums.since_s is not None
            most = 1.0 if found else margin
            learned[caller] = min(float(count), (total - count) * share / (1 - share) * most)
            if share * total >= _EXPECTED:
                self.margins.observe(state, multiple(count / total, share))
        self.baseline.learn(at_s, learned)
        self._strangers.learn(at_s, {NEWCOMERS: strange, _KNOWN: total - strange})
