"""Times as the tables keep them: whole microseconds since the epoch, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from taut.core.errors import InvalidInput

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_us(time: datetime) -> int:
    """Return microseconds since the epoch, exactly. Raises InvalidInput for a time without a zone."""
    if time.tzinfo is None:
        raise InvalidInput(f"{time.isoformat()} has no time zone: add one, for example Z for UTC")
    return (time - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the UTC time of `microseconds` since the epoch, exactly."""
    return _EPOCH + microseconds * _MICROSECOND
