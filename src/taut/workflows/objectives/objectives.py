"""The objectives of all endpoints: counted, judged, kept, and reported where a budget goes too fast."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from taut.lifecycle.objectives import Kept, Objective, Standing, Tally, judge, objectives_of
from taut.serving.snapshot import GatewayState
from taut.trust.findings import Findings
from taut.workflows.objectives.counting import (
    Events,
    GatewayCounts,
    Minute,
    OutcomeCounts,
    Recent,
    Traffic,
    decode_known,
    encode_known,
    minutes_of,
)
from taut.workflows.objectives.sightings import KINDS, sightings_of
from taut.workflows.rooms import Rooms

if TYPE_CHECKING:  # it loads numpy
    from taut.lifecycle.monitoring import Figures

Place = tuple[str, str]
_KEEP_S: Final = 60.0
_GAP_S: Final = 120.0
"""A longer pause between looks is one in which nobody looked: what came in it is spread over it."""
_RETAIN_S: Final = 90 * 86_400.0


class Objectives:
    """Counts events of what endpoints promise, says how each objective stands, and reports alerts.

    What was counted is kept every minute and by `close`, in one transaction with how far gateways' counters were read: a control that
    dies counts what came since anew, from the gateways, and nothing twice. While no control looked, nobody knows when what
    gateways counted came about: it is taken as spread evenly over that time. Any thread may call it;
    `said` is how objectives stood at the last look.
    Not guaranteed: what reached no gateway is not counted, nor what a gateway counted in its last second before it died.
    """

    def __init__(self, rooms: Rooms, findings: Findings, kept: Kept) -> None:
        self._rooms: Final = rooms
        self._findings: Final = findings
        self._kept: Final = kept
        self._turn: Final = threading.Lock()
        self._gateways: GatewayCounts | None = None
        self._outcomes: OutcomeCounts = OutcomeCounts()
        self._tallies: Final[dict[Place, Tally]] = {}
        self._carried: Final[dict[Place, float]] = {}
        self._looked_s = 0.0
        self._kept_s = 0.0
        self._asked_s: float | None = None
        self._recent: Final = Recent()
        self._reported = True
        self.said: tuple[Standing, ...] = ()
        self._counted: Final[dict[Place, list[int]]] = {}

    @property
    def counted(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """Return bad and all events by endpoint and name of an objective since this process began; they only grow."""
        return {place: (bad, total) for place, (bad, total) in list(self._counted.items())}

    def look(
        self, states: Sequence[GatewayState], said: Mapping[tuple[str, str], Figures]
    ) -> tuple[Standing, ...]:
        """Take what gateways and outcomes say now, renew alerts, and return how every objective stands.

        said: figures of versions that answer, of which known outcomes and ages are taken.
        """
        with self._turn:
            now_s = self._rooms.clock.now().timestamp()
            declared = self._declared()
            self._count(declared, states, said, now_s)
            standings = tuple(judge(one, self._tally(one), now_s) for one in declared)
            if self._rooms.clock.monotonic_s() - self._kept_s >= _KEEP_S:
                self._keep()
            self.said = standings
            found = [sighting for one in standings for sighting in sightings_of(one)]
            if found or self._reported:
                self._findings.observe(
                    KINDS, found
                )  # in turn: an older look must not end what a newer one saw
                self._reported = bool(found)
            return standings

    def traffic(self, endpoint: str) -> Traffic:
        """Return what an endpoint did within the last five minutes, or since this process looks."""
        with self._turn:
            return self._recent.of(endpoint, self._rooms.clock.monotonic_s())

    def standings(self) -> tuple[Standing, ...]:
        """Return how every objective stands by what was counted so far."""
        with self._turn:
            now_s = self._rooms.clock.now().timestamp()
            return tuple(judge(one, self._tally(one), now_s) for one in self._declared())

    def close(self) -> None:
        """Keep what was counted."""
        with self._turn:
            if self._gateways is not None:
                self._keep()

    def _declared(self) -> tuple[Objective, ...]:
        manifest = self._rooms.plans.current()
        endpoints = () if manifest is None else manifest.endpoints
        return tuple(one for spec in endpoints for one in objectives_of(spec.name, spec.slo))

    def _open(self) -> GatewayCounts:
        """Go on where the last process was."""
        if self._gateways is None:
            found = self._kept.progress()
            known = None if found is None else decode_known(found[0])
            self._gateways = GatewayCounts(None if known is None else known.gateways)
            self._outcomes = OutcomeCounts(None if known is None else known.outcomes)
            self._looked_s = 0.0 if found is None else found[1]
            self._kept_s = self._rooms.clock.monotonic_s()
        return self._gateways

    def _count(
        self,
        declared: Sequence[Objective],
        states: Sequence[GatewayState],
        said: Mapping[tuple[str, str], Figures],
        now_s: float,
    ) -> None:
        gateways = self._open()
        for one in declared:
            self._tally(one)  # before counters are taken: where it cannot be read, nothing is lost
        since_s = self._looked_s if self._looked_s and now_s - self._looked_s > _GAP_S else None
        self._looked_s = now_s
        clock_s = self._rooms.clock.monotonic_s()
        answers = gateways.take(states, clock_s)
        if self._asked_s is not None:
            self._recent.add(self._asked_s, clock_s, answers)
        self._asked_s = clock_s
        outcomes = self._outcomes.take(said)
        minutes = minutes_of(said, now_s)
        for one in declared:
            events = self._events(one, answers.get(one.endpoint), outcomes, minutes.get(one.endpoint), now_s)
            if events != (0, 0):
                self._tally(one).add(*events, until_s=now_s, since_s=since_s)
                so_far = self._counted.setdefault((one.endpoint, one.name), [0, 0])
                so_far[0] += max(0, events[0])
                so_far[1] += max(0, events[1])

    def _events(
        self,
        one: Objective,
        answers: Events | None,
        outcomes: Mapping[str, tuple[int, int]],
        minute: Minute | None,
        now_s: float,
    ) -> tuple[int, int]:
        """Return bad and all events of an objective since the last look."""
        if one.name == "quality":
            return outcomes.get(one.endpoint, (0, 0))
        if one.name in ("drift", "freshness"):
            if minute is None or self._tally(one).counted(now_s):
                return 0, 0
            if one.name == "drift":
                return int(minute.drifted), 1
            return (0, 0) if minute.age_s is None else (int(minute.age_s > one.limit), 1)
        found = None if answers is None else answers.of(one)
        if found is None:
            return 0, 0
        place = one.endpoint, one.measure
        exact = found[0] + self._carried.get(place, 0.0)  # parts of events, of a limit within a bucket
        bad = min(math.floor(exact + 1e-9), found[1])
        self._carried[place] = exact - bad
        return bad, found[1]

    def _tally(self, one: Objective) -> Tally:
        place = one.endpoint, one.measure
        tally = self._tallies.get(place)
        if tally is None:
            tally = self._tallies[place] = self._kept.tally(place, _RETAIN_S)
        return tally

    def _keep(self) -> None:
        known = encode_known(self._open(), self._outcomes)
        self._kept.keep({place: tally.changed() for place, tally in self._tallies.items()}, known)
        self._kept_s = self._rooms.clock.monotonic_s()
        for tally in self._tallies.values():
            tally.kept(self._rooms.clock.now().timestamp())
