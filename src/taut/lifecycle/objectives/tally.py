"""Good and bad events by the minute and by the hour: what windows are summed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

MINUTE_S: Final = 60
HOUR_S: Final = 3600
FINE_S: Final = 6 * HOUR_S
"""Windows up to this long are summed from minutes, longer ones from hours."""
_SPARE: Final = 2


class Count(NamedTuple):
    """bad of total events. Outcomes that were corrected may have taken back more than a short window holds: never below 0."""

    bad: int
    total: int

    @property
    def share(self) -> float:
        return self.bad / self.total if self.total else 0.0


class Slot(NamedTuple):
    """What one stretch of time holds. span_s: a minute or an hour. at: which one since 1970."""

    span_s: int
    at: int
    bad: int
    total: int


class Tally:
    """Events of one kind. Its size is bounded by what `keep_s` holds, whatever the traffic.

    keep_s: the longest window that is asked for. Not guaranteed: that a window begins on the second; it is as long as is asked for, up to a slot.
    """

    def __init__(self, keep_s: float, slots: Iterable[Slot] = ()) -> None:
        self._keep_s: Final = keep_s
        self._spans: Final[dict[int, dict[int, list[int]]]] = {MINUTE_S: {}, HOUR_S: {}}
        self._changed: Final[set[tuple[int, int]]] = set()
        for slot in slots:
            self._spans[slot.span_s][slot.at] = [slot.bad, slot.total]

    def add(self, bad: int, total: int, *, until_s: float, since_s: float | None = None) -> None:
        """Count events that happened by `until_s`, evenly since `since_s` where nobody knows when; seconds since 1970."""
        begin_s = until_s if since_s is None else min(max(since_s, until_s - self._keep_s), until_s)
        for span_s, slots in self._spans.items():
            first, last = int(begin_s // span_s), int(until_s // span_s)
            whole = last - first + 1
            held = whole if span_s == HOUR_S else min(whole, FINE_S // MINUTE_S + 1)
            for part in range(whole - held, whole):
                at = first + part
                slot = slots.setdefault(at, [0, 0])
                slot[0] += bad * (part + 1) // whole - bad * part // whole
                slot[1] += total * (part + 1) // whole - total * part // whole
                self._changed.add((span_s, at))

    def counted(self, at_s: float) -> bool:
        """Whether anything was counted in this minute."""
        return int(at_s // MINUTE_S) in self._spans[MINUTE_S]

    def window(self, now_s: float, window_s: float) -> Count:
        """Return what happened within the last `window_s`, the slot that is under way included."""
        span_s = MINUTE_S if window_s <= FINE_S else HOUR_S
        slots, last = self._spans[span_s], int(now_s // span_s)
        first = last - int(window_s // span_s) + 1
        bad = total = 0
        if len(slots) <= last - first:
            found = [slot for at, slot in slots.items() if first <= at <= last]
        else:
            found = [slots[at] for at in range(first, last + 1) if at in slots]
        for one in found:
            bad += one[0]
            total += one[1]
        total = max(total, 0)
        return Count(min(max(bad, 0), total), total)

    def changed(self) -> tuple[Slot, ...]:
        """Return the slots that changed since `kept` was called last."""
        return tuple(
            Slot(span_s, at, self._spans[span_s][at][0], self._spans[span_s][at][1])
            for span_s, at in sorted(self._changed)
        )

    def kept(self, now_s: float) -> None:
        """Take what changed for kept, and forget what no window holds any more."""
        self._changed.clear()
        for span_s, slots in self._spans.items():
            oldest = oldest_slot(span_s, now_s, self._keep_s)
            for at in [one for one in slots if one < oldest]:
                del slots[at]


def oldest_slot(span_s: int, now_s: float, keep_s: float) -> int:
    """Return the oldest slot that a window may still ask for."""
    held_s = FINE_S if span_s == MINUTE_S else keep_s
    return int((now_s - held_s) // span_s) - _SPARE
