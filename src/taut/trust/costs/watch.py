"""Finds callers whose requests, or whose spending, cost far more than theirs and their peers' did."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Final

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.trust.abuse.evidence import bets, fresh, step
from taut.trust.findings import Severity, Sighting

REQUEST: Final = "cost.amplification"
SPENDING: Final = "cost.spending"
KINDS: Final = (REQUEST, SPENDING)
"""What a request costs, and what a caller spends in ten seconds."""

_FACTORS: Final[Mapping[str, float]] = {REQUEST: 3.0, SPENDING: 10.0}
_SAID: Final[Mapping[str, str]] = {REQUEST: "a request", SPENDING: "ten seconds"}
_BLOCK: Final = 5
_WINDOW_S: Final = 10.0
_BOUND: Final = 0.05
_STAKES: Final = bets(_BOUND)
_DEVIATIONS: Final = 4 * 1.4826  # of the median absolute deviation, that of a normal distribution being one
_REMEMBERED: Final = 100
_KNOWN: Final = 20
_PEERS: Final = 5
_HIGH: Final = 0.9
_GRAVE: Final = 3.0
_CALM: Final = 8
"""So many values in a row that are not beyond close what is open."""
_GONE_S: Final = 3600.0


class _Track:
    """One measure of one caller: what was usual, and the evidence that it is so no more. Values are logarithms of milliseconds.

    open: since there was enough evidence, and until values are as before, `calm` of them in a row by now.
    """

    __slots__ = ("calm", "evidence", "last", "limit", "middle", "open", "sums", "usual", "wide")

    def __init__(self) -> None:
        self.open = False
        self.calm = 0
        self.usual: deque[float] = deque(maxlen=_REMEMBERED)
        self.sums = fresh()
        self.evidence = -math.inf
        self.last = self.limit = self.middle = self.wide = 0.0

    def take(self, value: float, peers: tuple[float, float] | None, factor: float, alarm: float) -> None:
        """Take one value. peers: where the high ones of them are, and how far theirs spread; None of too few."""
        self.last = value
        middles = [peers[0]] if peers else []
        if len(self.usual) >= _KNOWN:
            middles.append(self.middle)
        if not middles:
            self.learn(value)
            return
        wide = max(self.wide if len(self.usual) >= _KNOWN else 0.0, peers[1] if peers else 0.0)
        self.limit = max(middles) + max(math.log(factor), _DEVIATIONS * wide)
        beyond = value > self.limit
        self.evidence = step(self.sums, float(beyond), _BOUND, _STAKES, alarm)
        self.calm = 0 if beyond else self.calm + 1
        if self.evidence >= alarm:
            self.open = True
        if self.open and self.calm >= _CALM:
            self.open, self.sums, self.evidence = False, fresh(), -math.inf
        if not beyond:
            self.learn(value)

    def learn(self, value: float) -> None:
        self.usual.append(value)
        self.middle = median(self.usual)
        self.wide = median(abs(one - self.middle) for one in self.usual)


class _Caller:
    """One caller at one endpoint, and what fills his next block and window."""

    __slots__ = ("cost_ms", "requests", "seen_s", "since_s", "spent_ms", "tracks")

    def __init__(self, now_s: float) -> None:
        self.tracks = {kind: _Track() for kind in KINDS}
        self.requests = 0
        self.cost_ms = self.spent_ms = 0.0
        self.since_s = self.seen_s = now_s


class CostWatch:
    """Collects evidence against callers from what models took for them.

    values_between_alarms: how many values of honest callers there are at least between two false alarms, in expectation. callers_max:
    of how many something is remembered, some two thousand bytes each; who was seen longest ago is forgotten first.

    Values are the mean cost of five requests, and what was spent in each ten seconds in which anything was. One is *beyond* when it is
    above what is usual, times 3 (10 for spending) or as many as four deviations are. Usual is the higher one of his own median and
    of the level below which nine of ten callers' medians lie, each caller one voice; deviations are medians too, so that neither can be moved
    by less than half of a caller's values, or a tenth of the callers. What is beyond is never learned.

    Guarantee: while of honest callers' values one in twenty is beyond at most, given what came before, n values raise a false
    alarm with a chance of at most n over `values_between_alarms`, looked at however often (betting: see `trust.abuse.evidence`). Not guaranteed:
    finding who grows slowly, who was costly from his first request on, or one of whom nothing is known while he has fewer than
    five peers.
    Source: Rousseeuw & Croux 1993 for the deviations; Shin, Ramdas & Rinaldo, E-detectors, 2024.
    """

    def __init__(self, *, callers_max: int = 4000, values_between_alarms: float = 1e6) -> None:
        if callers_max < 1 or values_between_alarms < 100:
            raise InvalidInput(
                f"callers_max is {callers_max}, values_between_alarms {values_between_alarms}: give at least 1 and 100"
            )
        self._max: Final = callers_max
        self._alarm: Final = math.log(values_between_alarms * len(KINDS))
        self._callers: Final[dict[tuple[str, str], _Caller]] = {}
        self._peers: Final[dict[tuple[str, str], tuple[float, float]]] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def observe(self, endpoint: str, principal: str, requests: int, cost_ms: float, now_s: float) -> None:
        """Take what models took for some requests of a caller, later than those before."""
        if requests < 1 or cost_ms <= 0:
            return
        key = (endpoint, principal)
        caller = self._callers.pop(key, None) or _Caller(now_s)
        self._callers[key] = caller
        while len(self._callers) > self._max:
            del self._callers[next(iter(self._callers))]
        caller.seen_s = now_s
        if now_s - caller.since_s >= _WINDOW_S:
            if caller.spent_ms > 0:
                self._take(endpoint, caller, SPENDING, caller.spent_ms)
            caller.since_s, caller.spent_ms = now_s, 0.0
        caller.spent_ms += cost_ms
        caller.requests += requests
        caller.cost_ms += cost_ms
        blocks = caller.requests // _BLOCK
        if blocks:
            mean_ms = caller.cost_ms / caller.requests
            for _ in range(min(blocks, _KNOWN)):  # more of one report are no more evidence
                self._take(endpoint, caller, REQUEST, mean_ms)
            caller.requests, caller.cost_ms = 0, 0.0

    def sightings(self, now_s: float) -> tuple[Sighting, ...]:
        """Return against whom there is enough evidence now; learn what peers are like, and forget who is long gone."""
        for key in [key for key, one in self._callers.items() if now_s - one.seen_s > _GONE_S]:
            del self._callers[key]
        self._compare()
        found = []
        for (endpoint, principal), caller in sorted(self._callers.items()):
            for kind, track in caller.tracks.items():
                if track.open:
                    found.append(self._sighting(endpoint, principal, kind, track))
        return tuple(found)

    def accept(self, principal: str) -> None:
        """Forget a caller: what he costs from now on is usual."""
        for key in [key for key in self._callers if key[1] == principal]:
            del self._callers[key]

    def _take(self, endpoint: str, caller: _Caller, kind: str, value_ms: float) -> None:
        peers = self._peers.get((endpoint, kind))
        caller.tracks[kind].take(math.log(value_ms), peers, _FACTORS[kind], self._alarm)

    def _compare(self) -> None:
        """Find, for each endpoint and kind, where the high ones of the callers are and how far a caller's values spread."""
        middles: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for (endpoint, _), caller in self._callers.items():
            for kind, track in caller.tracks.items():
                if len(track.usual) >= _KNOWN:
                    middles.setdefault((endpoint, kind), []).append((track.middle, track.wide))
        self._peers.clear()
        for about, found in middles.items():
            if len(found) >= _PEERS:
                high = sorted(middle for middle, _ in found)[int(_HIGH * (len(found) - 1))]
                self._peers[about] = (high, median(wide for _, wide in found))

    def _sighting(self, endpoint: str, principal: str, kind: str, track: _Track) -> Sighting:
        severity: Severity = "critical" if track.evidence >= self._alarm + _GRAVE else "warning"
        now_ms, limit_ms = math.exp(track.last), math.exp(track.limit)
        evidence: dict[str, Scalar] = {
            "ms": round(now_ms, 3), "limit_ms": round(limit_ms, 3), "evidence": round(track.evidence, 2),
            "alarm": round(self._alarm, 2),
        }  # fmt: skip
        return Sighting(
            kind=kind, resource=f"endpoint:{endpoint}", principal=principal, score=round(track.evidence, 2),
            severity=severity, evidence=evidence,
            summary=(
                f"{principal}: {_SAID[kind]} took {now_ms:,.3g} ms of models, and at most {limit_ms:,.3g} ms is usual for "
                "him and his peers"
            ),
            closes="eight of these in a row as cheap as before (each the mean of five requests, or ten seconds), or an hour without any",
        )  # fmt: skip
