"""What part of the traffic is whose, by the hour of the week."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Final

HOURS: Final = 168
_WEEKS: Final = 5
_RECENT: Final = 24
_ENOUGH: Final = 3
_HOUR_S: Final = 3600
_EPOCH_WEEKDAY_H: Final = 3 * 24  # 1 January 1970 was a Thursday


def hour_of_week(at_s: float) -> int:
    """Return the hour of the week, 0 for Monday from midnight on, UTC. at_s: since 1970."""
    return int(at_s // _HOUR_S + _EPOCH_WEEKDAY_H) % HOURS


class Baseline:
    """Shares by caller and hour of the week: medians, so that one abused hour changes nothing.

    callers_max: bound on callers that are remembered; those that come after are newcomers for ever.

    Of an hour of the week the last five are kept, and of each caller the last 24 hours of any kind, which stand in until
    there are three of the right kind. An hour counts when it is over; one without traffic does not count.
    """

    def __init__(self, *, callers_max: int = 10_000) -> None:
        self._max: Final = callers_max
        self._weekly: Final[dict[str, dict[int, deque[float]]]] = {}
        self._recent: Final[dict[str, deque[float]]] = {}
        self._hour: int | None = None
        self._counts: dict[str, float] = {}
        self.closed: tuple[int, dict[str, float]] | None = None
        """The last hour that is over, since 1970, and what was counted in it."""

    def __len__(self) -> int:
        """Return how many callers have a baseline."""
        return len(self._recent)

    def share(self, caller: str, at_s: float) -> float | None:
        """Return a caller's usual share at this hour of the week; None for whoever is new."""
        recent = self._recent.get(caller)
        if recent is None:
            return None
        weekly = self._weekly[caller].get(hour_of_week(at_s), ())
        return statistics.median(weekly if len(weekly) >= _ENOUGH else recent)

    def learn(self, at_s: float, counts: Mapping[str, float]) -> None:
        """Take what was counted in the minute from `at_s` on."""
        hour = int(at_s // _HOUR_S)
        if self._hour is not None and hour != self._hour:
            self._close(self._hour)
        self._hour = hour
        for caller, count in counts.items():
            self._counts[caller] = self._counts.get(caller, 0.0) + count

    def forget(self, caller: str) -> None:
        """Take a caller for new from now on."""
        self._weekly.pop(caller, None)
        self._recent.pop(caller, None)
        self._counts.pop(caller, None)

    def _close(self, hour: int) -> None:
        counts, self._counts = self._counts, {}
        self.closed = (hour, counts)
        total = sum(counts.values())
        if not total:
            return
        slot = hour_of_week(hour * _HOUR_S)
        for caller in self._recent.keys() | counts.keys():
            if caller not in self._recent:
                if len(self._recent) >= self._max:
                    continue
                self._recent[caller] = deque(maxlen=_RECENT)
                self._weekly[caller] = {}
            share = counts.get(caller, 0.0) / total
            self._recent[caller].append(share)
            self._weekly[caller].setdefault(slot, deque(maxlen=_WEEKS)).append(share)
