"""Looks at the counts of each minute and says what is strange about them: the share detector, fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.ports.world import Clock
from taut.serving.snapshot import GatewayState
from taut.trust.findings import Severity, Sighting
from taut.trust.shares import NEWCOMERS, Finding, FleetState, ShareWatch
from taut.workflows.alarms.counts import OTHERS, CallerCounts

SHARE: Final = "share"
KINDS: Final = (SHARE,)
"""The kinds of sightings that a look is complete about."""

_CROWDS: Final = {
    NEWCOMERS: ("newcomers", "callers who were not known before"),
    OTHERS: ("others", "callers beyond those that gateways tell apart"),
}
_CHANGED_S: Final = 600.0
_MOST: Final = 0.5
"""A share of all requests from which on somebody crowds out all others."""


class FleetWatch:
    """What the fleet does, from how many gateways there are at the end of each window."""

    def __init__(self) -> None:
        self._gateways: int | None = None
        self._changed: tuple[float, FleetState] | None = None

    def observe(self, now_s: float, gateways: int, *, incident: bool) -> FleetState:
        """Return the state: for ten minutes after each change it scales or drains."""
        before, self._gateways = self._gateways, gateways
        if before is not None and gateways != before:
            self._changed = (now_s, "scaling" if gateways > before else "draining")
        if incident:
            return "incident"
        if self._changed is not None and now_s - self._changed[0] < _CHANGED_S:
            return self._changed[1]
        return "stable"


class Sentry:
    """Feeds the share detector, and keeps what it found until the next window is over.

    window_s: over which requests are counted. One thread owns it. Control that starts anew learns for an hour before it
    finds anybody, unless `watch` was given its past.
    """

    def __init__(self, *, clock: Clock, window_s: float, watch: ShareWatch | None = None) -> None:
        self.watch: Final = watch or ShareWatch()
        self._clock: Final = clock
        self._window_s: Final = window_s
        self._counts: Final = CallerCounts()
        self._fleet: Final = FleetWatch()
        self._since_s: float | None = None

    def look(self, states: Sequence[GatewayState], *, incident: bool = False) -> tuple[Sighting, ...] | None:
        """Take what gateways reported; return everything that is strange once a window is over, None before."""
        self._counts.take(states)
        now_s = self._clock.now().timestamp()
        if self._since_s is None or now_s < self._since_s:  # the clock was set back: begin anew
            self._since_s = now_s
        if now_s - self._since_s < self._window_s:
            return None
        since_s, self._since_s = self._since_s, now_s
        counts = self._counts.close_window()
        gateways = len({(one.gateway, one.pid) for one in states})
        state = self._fleet.observe(now_s, gateways, incident=incident)
        total = sum(counts.values())
        found = self.watch.observe(since_s, counts, state)
        return tuple(sighting_of(one, counts.get(one.caller, 0), total, now_s - since_s) for one in found)


def sighting_of(finding: Finding, asked: int, total: int, seconds: float) -> Sighting:
    """Return a finding in words and figures that a person can follow."""
    who = _CROWDS[finding.caller][1] if finding.caller in _CROWDS else finding.caller
    severity: Severity = "critical" if finding.share >= _MOST else "warning"
    crowd = finding.caller in _CROWDS
    return Sighting(
        kind=SHARE,
        resource="endpoint:any",
        principal="" if crowd else finding.caller,
        group=_CROWDS[finding.caller][0] if crowd else "",
        score=finding.multiplier,
        severity=severity,
        summary=(
            f"{who} sent {finding.share:.1%} of all requests, where {finding.usual:.1%} is usual at this hour of the week: "
            f"{finding.multiplier:.3g} times as often, and {finding.margin:.3g} times is tolerated while the fleet is "
            f"{finding.state}"
        ),
        evidence={
            "requests": asked, "of": total, "seconds": round(seconds, 1), "share": round(finding.share, 6),
            "usual": round(finding.usual, 6), "multiplier": round(finding.multiplier, 3),
            "margin": round(finding.margin, 3), "fleet": finding.state,
        },
        closes=f"less than {finding.margin:.3g} times as often as usual for five minutes in a row",
    )  # fmt: skip
