"""What load was usual at an hour of the week, and what a day has cost so far."""

from __future__ import annotations

import msgspec

from taut.trust.shares import hour_of_week

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_WEEKS = 5
_ENOUGH = 3
_SLICE_S = 300
KEPT_H = _WEEKS * 168


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """An hour of a pool. hour: since 1970. loads: signal -> the highest mean of five minutes. replica_s: replicas' seconds in it."""

    hour: int
    loads: dict[str, float] = {}
    replica_s: float = 0.0


class LoadHours:
    """The last five weeks of one pool, by the hour.

    Guarantees: one strange hour among three moves no forecast. Not guaranteed: what was learned since the last `recent` was kept, after a
    crash.
    """

    def __init__(self, kept: tuple[Hour, ...] = ()) -> None:
        self._hours = {one.hour: one for one in kept}
        self._slice: int | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._at_s: float | None = None

    def learn(self, wall_s: float, loads: dict[str, float], *, replicas: int) -> None:
        """Take what all replicas together had to do, and how many there were since the last time. wall_s: since 1970.

        A clock that was set back teaches nothing until it is where it was.
        """
        if self._at_s is not None and wall_s < self._at_s:
            return
        since_s = 0.0 if self._at_s is None else min(wall_s - self._at_s, float(_SLICE_S))
        self._at_s = wall_s
        if int(wall_s // _SLICE_S) != self._slice:
            self._close()
            self._slice = int(wall_s // _SLICE_S)
        for name, value in loads.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        hour = self._of(int(wall_s // _HOUR_S))
        self._hours[hour.hour] = msgspec.structs.replace(hour, replica_s=hour.replica_s + replicas * since_s)

    def recent(self) -> tuple[Hour, ...]:
        """Return the hour that is being learned, as far as it goes, and the one before; to be kept, and again later."""
        if self._at_s is None:
            return ()
        now = int(self._at_s // _HOUR_S)
        return tuple(self._hours[hour] for hour in (now - 1, now) if hour in self._hours)

    def usual(self, wall_s: float, signal: str) -> float | None:
        """Return what load is to be expected at that hour of the week; None where fewer than three weeks are known.

        The higher middle of the weeks that are known, the second highest of four or five: neither one launch nor one outage moves it.
        """
        now = int(wall_s // _HOUR_S)
        slot = hour_of_week(wall_s)
        seen = sorted(
            one.loads[signal]
            for one in self._hours.values()
            if one.hour < now and hour_of_week(one.hour * _HOUR_S) == slot and signal in one.loads
        )
        return seen[(len(seen) - 1) * 3 // 4] if len(seen) >= _ENOUGH else None

    def spent_s(self, wall_s: float) -> float:
        """Return replicas' seconds of this day, UTC, so far."""
        day = int(wall_s // _DAY_S)
        return sum(one.replica_s for one in self._hours.values() if one.hour // 24 == day)

    def _of(self, hour: int) -> Hour:
        return self._hours.get(hour) or Hour(hour=hour)

    def _close(self) -> None:
        if self._slice is None:
            return
        hour = self._of(self._slice * _SLICE_S // _HOUR_S)
        means = {name: total / count for name, (total, count) in self._sums.items()}
        loads = {
            name: max(hour.loads.get(name, 0.0), means.get(name, 0.0)) for name in hour.loads.keys() | means
        }
        self._hours[hour.hour] = msgspec.structs.replace(hour, loads=loads)
        self._sums = {}
        for old in [one for one in self._hours if one <= hour.hour - KEPT_H]:
            del self._hours[old]


def left_s(wall_s: float) -> float:
    """Return how much of the day, UTC, is left, in seconds."""
    return _DAY_S - wall_s % _DAY_S
