"""What happened when, and who did it: the leaves about an incident, its alerts, what followed from them, and the releases of its endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from taut.core.times import from_us
from taut.trust.deliveries import Deliveries
from taut.trust.incidents import Incident, Joined
from taut.trust.ledger import Leaf
from taut.workflows.rooms import Rooms

BEFORE: Final = timedelta(hours=6)
"""For how long before an incident releases of its endpoints are looked at."""

_RELEASES_MOST: Final = 50
_LEAVES_MOST: Final = 1000
_SAID_MOST: Final = 500
_ERASED: Final = "(erased)"


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a timeline. kind: of the leaf, or `told` for a delivery. leaf: its id in the ledger, empty for a delivery."""

    at: datetime
    who: str
    kind: str
    said: str
    leaf: str = ""


def timeline(rooms: Rooms, incident: Incident, alerts: tuple[Joined, ...]) -> tuple[Moment, ...]:
    """Return the moments of an incident, the first one first."""
    found = [*_of_leaves(rooms, incident, alerts), *_told(rooms.alarms.deliveries, incident, alerts)]
    return tuple(sorted(found, key=lambda one: (one.at, one.leaf, one.said)))


def endpoints_of(incident: Incident, alerts: tuple[Joined, ...]) -> tuple[str, ...]:
    """Return the names of the endpoints that an incident and its alerts are about."""
    named = [incident.endpoint]
    for one in alerts:
        kind, _, name = one.resource.partition(":")
        named.append(name if kind == "endpoint" and name != "any" else "")
    return tuple(dict.fromkeys(name for name in named if name))


def _of_leaves(rooms: Rooms, incident: Incident, alerts: tuple[Joined, ...]) -> Iterator[Moment]:
    until = incident.ended_at if incident.status == "resolved" else None
    for leaf in _about(rooms, f"incident:{incident.id}"):
        yield _moment(leaf)
    for alert in alerts:
        for leaf in _about(rooms, f"finding:{alert.alert}"):
            yield _moment(leaf)
    because = {one.alert for one in alerts}
    for held in rooms.alarms.containments.list(over=True, limit=_LEAVES_MOST):
        if held.alert in because:
            for leaf in _about(rooms, f"containment:{held.id}"):
                yield _moment(leaf)
    for endpoint in endpoints_of(incident, alerts):
        for release in rooms.releases.history(endpoint, limit=_RELEASES_MOST):
            for leaf in _about(rooms, f"release:{release.release}"):
                at = from_us(leaf.at_us)
                if at >= incident.opened_at - BEFORE and (until is None or at <= until):
                    yield _moment(leaf, f"{endpoint} {release.version}: ")


def _about(rooms: Rooms, subject: str) -> tuple[Leaf, ...]:
    return rooms.ledger.show(subject=subject, limit=_LEAVES_MOST, details=True)


def _told(deliveries: Deliveries, incident: Incident, alerts: tuple[Joined, ...]) -> Iterator[Moment]:
    for about in (incident.id, *(one.alert for one in alerts)):
        for one in deliveries.list(alert=about, limit=_LEAVES_MOST):
            what = "the incident" if about == incident.id else about
            said = {
                "delivered": f"{one.receiver} was told of {what} ({one.change})",
                "dead": f"{one.receiver} could not be told of {what} ({one.change}): {one.said}",
                "waiting": f"{one.receiver} is being told of {what} ({one.change})",
            }[one.state]
            yield Moment(at=one.tried_at or one.made_at, who="control", kind="told", said=said)


def _moment(leaf: Leaf, prefix: str = "") -> Moment:
    details = leaf.details if isinstance(leaf.details, dict) else {}
    say = _SAY.get(leaf.kind)
    said = leaf.kind.replace(".", " ") if say is None else say({**details, **leaf.body})
    return Moment(
        at=from_us(leaf.at_us), who=leaf.actor, kind=leaf.kind, said=f"{prefix}{said}"[:_SAID_MOST], leaf=leaf.id
    )  # fmt: skip


Body = Mapping[str, Any]


def _reason(body: Body) -> str:
    said = body.get("reason") or body.get("why")
    return f": {said}" if said else ""


_SAY: Final[dict[str, Callable[[Body], str]]] = {
    "incident.opened": lambda b: f"opened, {b.get('severity')}: {b.get('title', _ERASED)}",
    "incident.joined": lambda b: f"alert {b.get('alert')} ({b.get('kind')}, {b.get('severity')}) belongs to it",
    "incident.raised": lambda b: f"now {b.get('severity')}, by a graver alert",
    "incident.graded": lambda b: f"now {b.get('severity')}: {b.get('text', _ERASED)}",
    "incident.noted": lambda b: f"{b.get('text', _ERASED)}",
    "incident.assigned": lambda b: f"{b.get('owner')} answers for it",
    "incident.mitigated": lambda b: f"mitigated{_reason(b)}",
    "incident.reopened": lambda b: f"came back, after it was {b.get('was')}: alert {b.get('alert')} ({b.get('kind')})",
    "incident.resolved": lambda b: f"resolved{_reason(b)}",
    "drill.planted": lambda b: f"drill {b.get('name')}: a fault was planted on purpose",
    "drill.lifted": lambda b: f"drill {b.get('name')} is over",
    "playbook.done": lambda b: f"playbook {b.get('playbook')}, {b.get('act')}: {b.get('said', _ERASED)}",
    "playbook.refused": lambda b: f"playbook {b.get('playbook')} could not {b.get('act')}: {b.get('said', _ERASED)}",
    "playbook.left": lambda b: f"playbook {b.get('playbook')} did not {b.get('act')}: {b.get('said', _ERASED)}",
    "finding.opened": lambda b: f"seen: {b.get('summary') or b.get('kind')}",
    "finding.raised": lambda b: f"graver, {b.get('severity')}",
    "finding.lapsed": lambda b: f"over{_reason(b)}",
    "finding.dismissed": lambda b: f"dismissed{_reason(b)}",
    "containment.begun": lambda b: f"{b.get('action')} of {b.get('principal')}{_reason(b)}",
    "containment.prolonged": lambda _: "containment prolonged",
    "containment.lifted": lambda b: f"{b.get('principal')} let go{_reason(b)}",
    "containment.refused": lambda b: f"{b.get('principal')} was not contained{_reason(b)}",
    "release.started": lambda b: f"release started, {b.get('strategy')}{_reason(b)}",
    "release.promoted": lambda _: "release live",
    "release.aborted": lambda b: f"release ended{_reason(b)}",
    "release.withdrawn": lambda b: f"release taken back{_reason(b)}",
    "release.rolled_back": lambda b: f"rolled back from {b.get('from')}{_reason(b)}",
    "release.canary.begun": lambda _: "canary begun",
    "release.canary.judged": lambda b: f"canary: {b.get('move')}{_reason(b)}",
    "release.canary.paused": lambda b: f"canary paused{_reason(b)}",
    "release.canary.resumed": lambda b: f"canary resumed{_reason(b)}",
    "verdict.release": lambda b: f"judged: {b.get('decision')}",
}  # fmt: skip
"""What a leaf says, in words, by its kind; of others the kind itself says it."""
