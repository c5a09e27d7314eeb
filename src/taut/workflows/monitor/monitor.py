"""Watches every version that answers: follows the log, keeps figures, and reports what is beyond tolerance."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import VersionRef
from taut.core.times import from_us, to_us
from taut.core.units import parse_duration
from taut.lifecycle.monitoring import CONFIDENCE, LABEL, SCORE, EndpointWatch, Figures, Reference, Tolerance
from taut.lifecycle.monitoring.outcomes import Outcomes
from taut.lifecycle.monitoring.store import Kept, Place
from taut.ports.records import Tx
from taut.serving.predictions import CACHED, TAKEN, PredictionRecord
from taut.trust.findings import Findings, Sighting
from taut.workflows.monitor.following import Follower
from taut.workflows.monitor.joining import Claim, claims_of
from taut.workflows.monitor.learning import Learning
from taut.workflows.monitor.references import reference_of
from taut.workflows.monitor.sightings import KINDS as KINDS
from taut.workflows.monitor.sightings import sightings_of
from taut.workflows.rooms import Rooms

_OK: Final = 200
_KEEP_S: Final = 60.0
_QUIET_S: Final = 600.0
_ROWS: Final = 10_000


class Monitor:
    """Follows the prediction log and keeps a watch for each version that answers at an endpoint.

    Of a look at most 10,000 rows of a version count, spread evenly. Requests that were refused, and answers of another version or of
    nothing in a version's place, count for nobody. A version's reference is frozen when it is first seen to answer. What was seen
    is kept every minute, with how far the log was read, at once with outcomes that came, and when `close` is called; a control that
    dies, or a look that fails, reads the rest anew. `blind` says of which places nothing can be said, and why. One thread may look;
    `said` and `unmatched` may be read by any.
    Not guaranteed: endpoints without a prediction log (`audit="off"`) and graphs are not watched; an outcome whose answer is not found
    for ten minutes is let go, and counted in `unmatched`.
    """

    def __init__(self, rooms: Rooms, findings: Findings, kept: Kept, outcomes: Outcomes) -> None:
        self._rooms: Final = rooms
        self._findings: Final = findings
        self._kept: Final = kept
        self._looking: Final = threading.Lock()
        self._learning: Final = Learning(rooms, outcomes)
        self._watches: Final[dict[Place, EndpointWatch]] = {}
        self._changed: Final[set[Place]] = set()
        self._follower: Follower | None = None
        self._kept_s = 0.0
        self.blind: Final[dict[Place, str]] = {}
        self.said: Mapping[Place, Figures] = {}

    @property
    def unmatched(self) -> Mapping[str, int]:
        """Return by endpoint how many outcomes were let go because no answer was found for them, since control began."""
        return self._learning.unmatched

    def look(self) -> int:
        """Take what was logged since the last look, renew figures and alerts, and return how many records that were."""
        with self._looking:
            try:
                return self._look()
            except BaseException:
                self._follower = None  # as if it had not been: the next look begins with what was kept
                self._watches.clear()
                self._changed.clear()
                raise

    def close(self) -> None:
        """Keep what was seen."""
        with self._looking:
            if self._follower is not None:
                self._keep(self._follower)

    def _look(self) -> int:
        follower = self._follower = self._follower or self._begin()
        by_place: dict[Place, list[PredictionRecord]] = {}
        told: list[Claim] = []
        count = 0
        for record in follower.fresh():
            count += 1
            if record.status == TAKEN:
                told += claims_of(record)
            elif record.status == _OK and record.fallback in ("", CACHED):
                by_place.setdefault((record.head.endpoint, record.head.version), []).append(record)
        for place, records in by_place.items():
            watch = self._watch(place)
            if watch is not None:
                self._take(watch, records)
        learned = self._learning.take(told, self._watch)
        touched = (learned.places | by_place.keys()) & self._watches.keys()
        self._changed.update(touched)
        if learned.kept or self._rooms.clock.monotonic_s() - self._kept_s >= _KEEP_S:
            self._keep(follower, learned.write)
        self._say(touched)
        return count

    def _begin(self) -> Follower:
        follower = Follower(
            self._rooms.predictions, self._kept.positions(), now_us=to_us(self._rooms.clock.now())
        )
        for place in self._kept.places():
            self._watch(place)
        self._kept_s = self._rooms.clock.monotonic_s()
        return follower

    def _keep(self, follower: Follower, also: Callable[[Tx], None] = lambda _tx: None) -> None:
        changed = {place: self._watches[place] for place in sorted(self._changed)}
        self._kept.keep(changed, follower.positions, also)
        self._changed.clear()
        self._kept_s = self._rooms.clock.monotonic_s()

    def _watch(self, place: Place) -> EndpointWatch | None:
        """Return the watch of a place; None where nothing can be said of it."""
        tolerance = self._tolerance(place[0])
        known = self._watches.get(place)
        if known is not None and known.tolerance == tolerance:
            return known
        if place in self.blind:
            return None
        try:
            reference = self._kept.reference(place[1]) or self._kept.freeze(
                reference_of(self._rooms, VersionRef.parse(place[1]))
            )
        except (InvalidInput, NotFound) as error:
            self.blind[place] = error.message
            return None
        seed = zlib.crc32("\n".join(place).encode())
        self._watches[place] = self._kept.resume(place, reference, tolerance, seed=seed)
        return self._watches[place]

    def _tolerance(self, endpoint: str) -> Tolerance:
        manifest = self._rooms.plans.current()
        specs = () if manifest is None else manifest.endpoints
        spec = next((one.monitor for one in specs if one.name == endpoint), None)
        if spec is None:
            return Tolerance()
        window_s = parse_duration(spec.window).total_seconds()
        return Tolerance(shift=spec.shift, faults=spec.faults, risk=spec.risk, window_s=window_s)

    def _take(self, watch: EndpointWatch, records: Sequence[PredictionRecord]) -> None:
        now_us = to_us(self._rooms.clock.now())
        rows = sum(len(record.answer.probabilities or record.answer.values) for record in records)
        some = sorted(records[:: -(-rows // _ROWS) or 1], key=lambda one: one.time_us)
        signature = self._rooms.registry.signature(VersionRef.parse(watch.reference.version))
        values, at_us, about_us = columns_of(
            some, watch.reference, event_time=signature.event_time, now_us=now_us
        )
        if at_us:
            codes = watch.reference.encode(values, len(at_us))
            hours = np.array([from_us(one).weekday() * 24 + from_us(one).hour for one in about_us])
            watch.observe(codes, np.array(at_us) / 1e6, hours)

    def _say(self, touched: Collection[Place]) -> None:
        before = self.said
        said = {
            place: before[place] if place in before and place not in touched else watch.figures()
            for place, watch in sorted(self._watches.items())
        }
        newest: dict[str, float] = {}
        for (endpoint, _), figures in said.items():
            newest[endpoint] = max(newest.get(endpoint, 0.0), figures.last_s or 0.0)
        found: list[Sighting] = []
        for (endpoint, version), figures in said.items():
            if (figures.last_s or 0.0) < newest[endpoint] - _QUIET_S:
                del self._watches[endpoint, version]  # another version answers: this one is over
                self._kept.forget((endpoint, version))
                self._changed.discard((endpoint, version))
            else:
                found += sightings_of(endpoint, figures)
        self.said = {place: said[place] for place in self._watches}
        self._findings.observe(KINDS, found)


def columns_of(
    records: Sequence[PredictionRecord], reference: Reference, *, event_time: str | None, now_us: int
) -> tuple[dict[str, list[Any]], list[int], list[int]]:
    """Return what records hold by column, when each row was asked, and the time that it asks about; microseconds.

    A clock of a gateway that is ahead of ours counts as ours.
    """
    values: dict[str, list[Any]] = {cells.name: [] for cells in reference.columns}
    at_us: list[int] = []
    about_us: list[int] = []
    for record in records:
        said = _said(record)
        asked = record.requests()
        if len(asked) != len(said):
            continue  # an answer without rows, as a batch of nothing has
        for at, row in enumerate(asked):
            found = row | _features(record, at) | said[at]
            for name, column in values.items():
                column.append(found.get(name))
            moment = min(record.time_us, now_us)
            at_us.append(moment)
            about_us.append(_about(row.get(event_time), moment) if event_time is not None else moment)
    return values, at_us, about_us


def _about(value: object, moment: int) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return moment
    return to_us(value) if isinstance(value, datetime) and value.tzinfo is not None else moment


def _features(record: PredictionRecord, at: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if record.features:
        for lookup, row in zip(record.head.lookups, record.features[at], strict=False):
            if row is not None:
                found |= dict(zip(lookup.columns, row.values, strict=False))
    return found


def _said(record: PredictionRecord) -> list[dict[str, Any]]:
    """Return for each row what the version said of it, as columns."""
    answer = record.answer
    if not answer.probabilities:
        return [{SCORE: value} for value in answer.values]
    return [
        {LABEL: str(label), CONFIDENCE: max(of), **({SCORE: of[1]} if len(of) == 2 else {})}
        for label, of in zip(answer.labels, answer.probabilities, strict=True)
    ]
