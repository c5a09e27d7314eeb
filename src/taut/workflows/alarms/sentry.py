"""Looks at the counts of each minute and says what is strange about them: the share detector, fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.ports.world import Clock
from taut.serving.meters import decode_reading
from taut.serving.snapshot import GatewayState
from taut.trust.findings import Severity, Sighting
from taut.trust.shares import NEWCOMERS, CapacityWatch, Finding, FleetState, Hours, ShareWatch
from taut.workflows.alarms.counts import OTHERS, CallerCounts

SHARE: Final = "share"
CAPACITY: Final = "capacity"
SCALE: Final = "scale"
KINDS: Final = (SHARE, CAPACITY, SCALE)
"""The kinds of sightings that a look is complete about; a change of the fleet is over with the look after it."""

_CROWDS: Final = {
    NEWCOMERS: ("newcomers", "callers who were not known before"),
    OTHERS: ("others", "callers beyond those that gateways tell apart"),
}
_CHANGED_S: Final = 600.0
_LAG_S: Final = 120.0
"""For how long more load than there is room for may last while the fleet grows."""

_CALM: Final = 5
"""Windows without any requests after which nobody is held anything against."""

_FULL: Final = 0.8
"""Of the slots of gateways: beyond it only what has a high priority gets one."""

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

    window_s: over which requests are counted. hours: what was usual, as it is kept; without, it is learned for an hour before
    anybody is found. One thread owns it.
    """

    def __init__(self, *, clock: Clock, window_s: float, hours: Hours | None = None) -> None:
        if window_s < 1:
            raise InvalidInput(f"shares cannot be judged every {window_s:g} s: give 1s or more")
        self.watch: Final = ShareWatch()
        self._hours: Final = hours
        self._kept = -1
        if hours is not None:
            hours.recall(self.watch)
        self._clock: Final = clock
        self._window_s: Final = window_s
        self._counts: Final = CallerCounts()
        self._fleet: Final = FleetWatch()
        self._capacity: Final = CapacityWatch(scaling_lag_s=_LAG_S)
        self._since_s: float | None = None
        self._shares: tuple[Sighting, ...] = ()
        self._idle = 0

    def look(self, states: Sequence[GatewayState], *, incident: bool = False) -> tuple[Sighting, ...] | None:
        """Take what gateways reported; return everything that is strange once a window is over, None before."""
        self._counts.take(states)
        now_s = self._clock.now().timestamp()
        crowded = self._look_at_capacity(states)
        if self._since_s is None or now_s < self._since_s:  # the clock was set back: begin anew
            self._since_s = now_s
        if now_s - self._since_s < self._window_s:
            return None
        since_s, self._since_s = self._since_s, now_s
        counts = self._counts.close_window()
        gateways = len({(one.gateway, one.pid) for one in states})
        state = self._fleet.observe(now_s, gateways, incident=incident)
        total = sum(counts.values())
        if total:
            found = self.watch.observe(since_s, counts, state)
            self._shares = tuple(
                sighting_of(one, counts.get(one.caller, 0), total, now_s - since_s) for one in found
            )
        self._idle = 0 if total else self._idle + 1
        if self._idle >= _CALM:
            self.watch.rest()
            self._shares = ()
        self._keep()
        return (*self._shares, *crowded)

    def _look_at_capacity(self, states: Sequence[GatewayState]) -> tuple[Sighting, ...]:
        """Say that there is more to do than the fleet carries, once that lasts; whoever asks, and however that came."""
        readings = [decode_reading(one.beat.meters) for one in states if one.beat is not None]
        busy = sum(one.in_flight for one in readings if one is not None)
        slots = sum(one.slots for one in readings if one is not None)
        monotonic_s = self._clock.monotonic_s()
        since_s = self._capacity.observe(monotonic_s, load=busy, limit=_FULL * slots)
        if since_s is None:
            return ()
        lasted_s = monotonic_s - since_s
        return (
            Sighting(
                kind=CAPACITY, group="gateways", resource="pool:gateways", score=busy / max(slots, 1), severity="warning",
                summary=f"gateways have {busy} requests under way and room for {slots}, for {lasted_s:.0f} s already",
                evidence={"under_way": busy, "slots": slots, "seconds": round(lasted_s)},
                closes=f"at most {_FULL:.0%} of the slots in use",
            ),
        )  # fmt: skip

    def _keep(self) -> None:
        """Keep what the last hour taught, once it is over."""
        hour = self.watch.taught()
        if self._hours is not None and hour is not None and hour.hour != self._kept:
            self._hours.keep(hour, self.watch)
            self._kept = hour.hour


def scaled(scale_id: str, body: Mapping[str, Scalar]) -> Sighting:
    """Return what the scale log says as a sighting, before anything of it can serve."""
    return Sighting(
        kind=SCALE, group=scale_id, resource=f"pool:{body.get('pool')}", score=0.0, severity="info", evidence=dict(body),
        summary=f"pool {body.get('pool')} is to have {body.get('n')} replicas: {body.get('reason') or 'no reason is given'}",
    )  # fmt: skip


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
