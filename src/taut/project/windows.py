"""Declaring the times in which releases wait."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import FreezeSpec
from taut.project.words import worded

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK: Final = timedelta(days=7)
_WEEKLY: Final = re.compile(r"(\w{3}) (\d\d):(\d\d) - (\w{3}) (\d\d):(\d\d)")


class Freeze:
    """Times in which no release starts, and no canary or experiment that began before them goes on. What harms is ended all the same, and
    everything may be rolled back."""

    @worded("Freeze")
    def __init__(
        self,
        name: str,
        *,
        weekly: str | None = None,
        since: str | None = None,
        until: str | None = None,
        endpoints: Endpoint | Sequence[Endpoint] = (),
        reason: str = "",
    ) -> None:
        """weekly: as `fri 16:00 - mon 08:00`, UTC. Or since, until: one time, ISO 8601 with their offsets. endpoints: where; all where none is named."""
        what = f"Freeze {name!r}"
        found = words.instances(
            endpoints, Endpoint, f"{what}: endpoints", "name the taut.Endpoint objects that it is for"
        )
        self.spec = FreezeSpec(
            name=words.name(name, "freeze"),
            weekly=words.optional_text(weekly, f"{what}: weekly"),
            since=words.optional_text(since, f"{what}: since"),
            until=words.optional_text(until, f"{what}: until"),
            endpoints=tuple(sorted(endpoint.name for endpoint in found)),
            reason=words.text(reason, f"{what}: reason") if reason else "",
        )
        if (weekly is None) is (since is None or until is None):
            raise InvalidInput(f"{what}: write weekly='fri 16:00 - mon 08:00', or since and until")
        window(self.spec, datetime(2026, 1, 1, tzinfo=UTC))  # what cannot be read is refused here
        self.place = declare("freeze", self.spec.name, self)


def window(spec: FreezeSpec, now: datetime) -> tuple[datetime, datetime] | None:
    """Return since when and until when releases wait, where they do now; None else. Raises InvalidInput for times that are none.

    >>> spec = FreezeSpec(name="weekend", weekly="fri 16:00 - mon 08:00")
    >>> [str(one) for one in window(spec, datetime(2026, 1, 3, 12, tzinfo=UTC))]
    ['2026-01-02 16:00:00+00:00', '2026-01-05 08:00:00+00:00']
    >>> window(spec, datetime(2026, 1, 5, 8, tzinfo=UTC))
    """
    if spec.weekly is None:
        since, until = (_moment(spec, one) for one in (spec.since, spec.until))
        if since >= until:
            raise InvalidInput(f"Freeze {spec.name!r}: since is not before until")
        return (since, until) if since <= now < until else None
    begins, ends = _weekly(spec)
    now = now.astimezone(UTC)
    monday = datetime(now.year, now.month, now.day, tzinfo=UTC) - timedelta(days=now.weekday())
    since = monday + begins
    since -= _WEEK if since > now else timedelta()
    until = since + (ends - begins) % _WEEK
    return (since, until) if now < until else None


def _weekly(spec: FreezeSpec) -> tuple[timedelta, timedelta]:
    found = _WEEKLY.fullmatch(spec.weekly or "")
    if found is None or not {found[1], found[4]} <= set(_DAYS):
        raise InvalidInput(
            f"Freeze {spec.name!r}: weekly is {spec.weekly!r}: write for example 'fri 16:00 - mon 08:00'"
        )
    begins, ends = (
        timedelta(days=_DAYS.index(found[at]), hours=int(found[at + 1]), minutes=int(found[at + 2]))
        for at in (1, 4)
    )
    if begins == ends or int(found[2]) > 23 or int(found[5]) > 23 or int(found[3]) > 59 or int(found[6]) > 59:
        raise InvalidInput(
            f"Freeze {spec.name!r}: weekly is {spec.weekly!r}: times from 00:00 to 23:59 that differ are wanted"
        )
    return begins, ends


def _moment(spec: FreezeSpec, text: str | None) -> datetime:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidInput(
            f"Freeze {spec.name!r}: {text!r} is no time with an offset: write for example 2026-12-20T00:00:00Z"
        )
    return found.astimezone(UTC)
