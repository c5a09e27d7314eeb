"""How security stands beside compute: how soon replicas are guarded, what the guard costs, whether that grows, and what is old.

Each figure says what it was measured on; where nothing was measured it is None with the reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final, Protocol

import msgspec

from taut.core.times import from_us, to_us
from taut.serving.meters import MeterReading, decode_reading
from taut.serving.predictions import decode_record
from taut.serving.snapshot import GatewayState
from taut.trust.ledger import Leaf
from taut.workflows.rooms import Rooms

RECORDS_MAX: Final = 50_000
MINUTE_US: Final = 60_000_000
MINUTES_MIN: Final = 8
REQUESTS_MIN: Final = 20
FLAT: Final = 0.10
_LEAVES_MAX: Final = 10_000


class Provisioning(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a replica's invitation to its admission, from the ledger. said: where there is nothing, why.

    waiting: replicas that were provisioned and not admitted afterwards.
    """

    replicas: int
    p50_s: float | None = None
    p99_s: float | None = None
    worst_s: float | None = None
    worst: str = ""
    waiting: int = 0
    said: str = ""


class GuardCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard takes of answered requests. share: of their whole time in the gateway, 0 to 1."""

    requests: int
    gateways: int
    mean_us: float | None = None
    share: float | None = None
    said: str = ""


class Linearity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the guard's time of one request stays as it is when there are more requests.

    quiet_us, busy_us: median guard time in the quietest and the busiest quarter of the minutes looked at. ratio: of both;
    flat within a tenth.
    """

    minutes: int
    quiet_us: float | None = None
    busy_us: float | None = None
    ratio: float | None = None
    flat: bool | None = None
    said: str = ""


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """How old something is. until: when it ends by itself; None where it does not. old: whether it should be renewed."""

    what: str
    name: str
    since: datetime | None
    until: datetime | None = None
    old: bool = False


class Publishing(Protocol):
    """Who hears gateways."""

    def gateways(self) -> Sequence[GatewayState]: ...


def provisioning(rooms: Rooms, *, since: datetime) -> Provisioning:
    """Measure from the ledger how long replicas waited between their invitation and their first admission after it."""
    leaves: list[Leaf] = []
    for kind in ("fleet.provisioned", "fleet.admitted"):
        leaves += rooms.ledger.show(kind=kind, since=since, limit=_LEAVES_MAX)
    began: dict[str, int] = {}
    took: dict[str, float] = {}
    for leaf in sorted(leaves, key=lambda leaf: (leaf.at_us, leaf.kind == "fleet.admitted")):
        if leaf.kind == "fleet.provisioned":
            began[leaf.subject] = leaf.at_us
        elif leaf.subject in began:
            took[leaf.subject] = (leaf.at_us - began.pop(leaf.subject)) / 1e6
    if not took:
        said = "no replica was admitted in this time" + (f"; {len(began)} wait" if began else "")
        return Provisioning(replicas=0, waiting=len(began), said=said)
    ordered = sorted(took.values())
    worst = max(took, key=lambda name: took[name])
    return Provisioning(
        replicas=len(took), p50_s=round(median(ordered), 3), p99_s=round(quantile(ordered, 0.99), 3),
        worst_s=round(took[worst], 3), worst=worst, waiting=len(began),
    )  # fmt: skip


def guard_cost(publisher: Publishing | None) -> GuardCost:
    """Read the gateways' own meters: time in the guard beside the whole time of answered requests, since they started."""
    states = () if publisher is None else publisher.gateways()
    readings = [decode_reading(state.beat.meters) for state in states if state.beat is not None]
    return guard_share([reading for reading in readings if reading is not None])


def guard_share(readings: Sequence[MeterReading]) -> GuardCost:
    """Return the guard's share over all endpoints of all gateways."""
    guard = total = count = 0
    for reading in readings:
        for endpoint in reading.endpoints:
            if "guard" in endpoint.stages and "total" in endpoint.stages:
                guard += endpoint.stages["guard"].total
                total += endpoint.stages["total"].total
                count += endpoint.stages["total"].count
    if not count or not total:
        said = "no gateway told of an answered request: is `taut up` running?"
        return GuardCost(requests=0, gateways=len(readings), said=said)
    return GuardCost(
        requests=count, gateways=len(readings), mean_us=round(guard / count / 1000, 2), share=round(guard / total, 5)
    )  # fmt: skip


def linearity(rooms: Rooms, *, since: datetime) -> Linearity:
    """Compare guard times of quiet and busy minutes in the newest 50,000 records of the prediction log."""
    found: list[tuple[int, int]] = []
    since_us = to_us(since)
    for segment in reversed(rooms.predictions.segments()):
        for payload in reversed(rooms.predictions.payloads(segment)):
            record = decode_record(payload)
            if len(found) >= RECORDS_MAX:
                return linearity_of(found)
            if record.time_us < since_us:
                break
            if record.status == 200:
                found.append((record.time_us, record.guard_us))
    return linearity_of(found)


def linearity_of(found: Iterable[tuple[int, int]]) -> Linearity:
    """Judge (time, guard time) of answered requests, both in microseconds."""
    minutes: dict[int, list[int]] = {}
    for time_us, guard_us in found:
        minutes.setdefault(time_us // MINUTE_US, []).append(guard_us)
    usable = sorted((times for times in minutes.values() if len(times) >= REQUESTS_MIN), key=len)
    if len(usable) < MINUTES_MIN:
        said = (
            f"{len(usable)} minutes had {REQUESTS_MIN} requests or more, {MINUTES_MIN} are needed to compare"
        )
        return Linearity(minutes=len(usable), said=said)
    quarter = max(1, len(usable) // 4)
    quiet = median(time for times in usable[:quarter] for time in times)
    busy = median(time for times in usable[-quarter:] for time in times)
    ratio = busy / quiet if quiet else 1.0 if busy == quiet else float(busy)
    return Linearity(
        minutes=len(usable), quiet_us=float(quiet), busy_us=float(busy), ratio=round(ratio, 3),
        flat=ratio <= 1 + FLAT,
    )  # fmt: skip


def ages(rooms: Rooms, *, now: datetime, old_days: int) -> tuple[Age, ...]:
    """Return the age of every API key that still opens, and of every secret, the oldest first.

    Secrets are as old as the leaf of their last change says.
    """
    limit = now - timedelta(days=old_days)
    keys = rooms.identity.keys()
    found = [
        Age(
            what="API key", name=f"{key.id} of {key.principal}", since=key.created_at, until=key.expires_at,
            old=key.created_at < limit,
        )
        for key in keys
        if key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
    ]  # fmt: skip
    secrets: dict[str, Leaf] = {}
    for leaf in rooms.ledger.show(kind="secret.", limit=_LEAVES_MAX):
        secrets.setdefault(leaf.subject, leaf)
    for subject, leaf in secrets.items():
        if leaf.kind != "secret.deleted":
            at = from_us(leaf.at_us)
            found.append(Age(what="secret", name=subject.partition(":")[2], since=at, old=at < limit))
    return tuple(sorted(found, key=lambda age: (age.since or now, age.what, age.name)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all are not above (nearest rank). ordered: ascending, not empty."""
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]
