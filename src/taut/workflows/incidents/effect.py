"""What an incident did to callers, in figures, from the prediction log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import msgspec

from taut.core.times import to_us
from taut.serving.predictions.record import SHADOWED, TAKEN, PredictionRecord, decode_record
from taut.workflows.rooms import Rooms

_RECORDS_MOST: Final = 200_000
_NO_ANSWERS: Final = frozenset({TAKEN, SHADOWED})
"""Statuses of records of what no caller was answered: outcomes that he told, and what a shadow would have said."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered at an endpoint in a time.

    answered: with the live version's own answer. stood_in: with that of something in its place. failed: with 500 and above.
    refused: with another status of 400 and above. callers: how many asked; harmed: those of them who got a failure.
    whole: False where there was more than is read.
    """

    endpoint: str
    answered: int = 0
    stood_in: int = 0
    failed: int = 0
    refused: int = 0
    callers: int = 0
    harmed: int = 0
    versions: tuple[str, ...] = ()
    whole: bool = True


def effect_at(rooms: Rooms, endpoint: str, since: datetime, until: datetime) -> Effect:
    """Count the newest 200,000 requests of an endpoint in a time."""
    counts = {"answered": 0, "stood_in": 0, "failed": 0, "refused": 0}
    asked: set[str] = set()
    harmed: set[str] = set()
    versions: set[str] = set()
    left = _RECORDS_MOST
    for record in _records(rooms, to_us(since), to_us(until)):
        if record.head.endpoint != endpoint or record.status in _NO_ANSWERS:
            continue
        left -= 1
        if left < 0:
            break
        asked.add(record.principal)
        counts[_as(record)] += 1
        if record.status >= 500:
            harmed.add(record.principal)
        else:
            versions.add(record.head.version)
    return Effect(
        endpoint=endpoint, **counts, callers=len(asked), harmed=len(harmed), versions=tuple(sorted(versions)), whole=left >= 0,
    )  # fmt: skip


def _as(record: PredictionRecord) -> str:
    if record.status >= 500:
        return "failed"
    if record.status >= 400:
        return "refused"
    return "stood_in" if record.fallback else "answered"


def _records(rooms: Rooms, since_us: int, until_us: int) -> Iterator[PredictionRecord]:
    """Yield the records of a time, segments that ended before it left out."""
    for segment in reversed(rooms.predictions.segments()):
        if segment.started_us > until_us or rooms.predictions.written_us(segment) < since_us:
            continue
        for payload in reversed(rooms.predictions.payloads(segment)):
            record = decode_record(payload)
            if since_us <= record.time_us <= until_us:
                yield record
