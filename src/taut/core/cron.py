"""When something is due by the clock on a wall: the five fields of cron, in a time zone.

Our own, since it is the forms that a project may write and no more: libraries for it bring names of months, seconds, `@reboot` and
nicknames, each with a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taut.core.errors import InvalidInput

FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day", 1, 31),
    ("month", 1, 12),
    ("weekday", 0, 7),
)
_DAYS: Final = 366 * 8 + 1
"""A 29th of February comes within eight years, over 1900 and 2100 too."""


class Cron:
    """A schedule: minute, hour, day, month, weekday, each `*`, numbers, ranges or steps; Sunday is 0 and 7.

    Where both day and weekday are restricted, either is enough, as in Vixie's cron. A time that the change to summer leaves out is due an
    hour later by that clock, and one that comes twice is due the first time. Raises InvalidInput for what is no schedule, or never due.

    >>> Cron("0 3 * * 1", "Europe/Zurich").next(datetime(2026, 3, 28, tzinfo=UTC)).isoformat()
    '2026-03-30T01:00:00+00:00'
    """

    def __init__(self, schedule: str, zone: str = "UTC") -> None:
        fields = schedule.split()
        if len(fields) != len(FIELDS):
            raise InvalidInput(
                f"cron: {schedule!r} has {len(fields)} fields: write five, for example '0 3 * * *'"
            )
        sets = []
        for written, (name, low, high) in zip(fields, FIELDS, strict=True):
            values = [_values(item, low, high) for item in written.split(",")]
            if not all(values):
                raise InvalidInput(
                    f"cron: the {name} {written!r} of {schedule!r} must lie in {low} to {high}"
                )
            sets.append(frozenset().union(*values))
        self._minutes, self._hours, self._days, self._months, weekdays = sets
        self._weekdays: Final = frozenset(day % 7 for day in weekdays)
        self._either: Final = not fields[2].startswith("*") and not fields[4].startswith("*")
        self._zone: Final = zone_of(zone)
        if self.next(datetime(2024, 1, 1, tzinfo=UTC)) is None:
            raise InvalidInput(f"cron: {schedule!r} is never due: no month has such a day")

    def last(self, now: datetime) -> datetime | None:
        """Return the latest time that is due and not later than `now`; None where there is none in eight years."""
        for day in self._from(now, -1):
            found = [at for at in self._times(day) if at <= now]
            if found:
                return max(found)
        return None

    def next(self, after: datetime) -> datetime | None:
        """Return the first time that is due after `after`; None where there is none in eight years."""
        for day in self._from(after, 1):
            found = [at for at in self._times(day) if at > after]
            if found:
                return min(found)
        return None

    def _from(self, at: datetime, step: int) -> Iterator[date]:
        today = at.astimezone(self._zone).date()
        days = (today + timedelta(days=number * step) for number in range(_DAYS))
        return (day for day in days if self._on(day))

    def _on(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        by_date, by_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return by_date or by_week if self._either else by_date and by_week

    def _times(self, day: date) -> Iterator[datetime]:
        for hour in self._hours:
            for minute in self._minutes:
                yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=self._zone).astimezone(UTC)


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises InvalidInput for a name that is none."""
    if name == "UTC":
        return UTC  # also where a machine has no list of zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            f"time zone {name[:60]!r} is unknown: write UTC, or for example Europe/Zurich"
        ) from error


def _values(item: str, low: int, high: int) -> frozenset[int]:
    """Return what one item of a field means; nothing for what means nothing."""
    span, slash, step = item.partition("/")
    if not item.isascii() or (slash and not (step.isdigit() and int(step) > 0)):  # `²` is a digit to Python
        return frozenset()
    if span == "*":
        return frozenset(range(low, high + 1, int(step or 1)))
    ends = span.split("-")
    if len(ends) > 2 or not all(end.isdigit() and low <= int(end) <= high for end in ends):
        return frozenset()
    last = high if slash and len(ends) == 1 else int(ends[-1])
    return frozenset(range(int(ends[0]), last + 1, int(step or 1)))
