"""Who is scored next, and who is turned away: the discipline of one model's waiting line, free of clocks and sockets.

Batching is greedy and knows no timer: a free worker takes what waits, no more than the measured cost allows within the
earliest deadline among it. The line is short (two batches, or one where they are as large as the profile `throughput`
makes them), so that what is admitted is answered in time. When it is
long, the newest come first: under overload the oldest are those that are closest to being too late. Priorities go
before others; within one, callers take turns by rows, not by requests, and who makes the line overflow is the one with
the most waiting in it, so that one cannot starve another. (Turns by rows are deficit round robin with a quantum of one
row, Shreedhar & Varghese 1995, where a turn may be overdrawn and is paid back by those that follow.)

Against a first-in-first-out line without bound, goodput at 1.3 times the capacity is 97% of the ideal instead of 4%
(`tests/simulation/test_worker_queue.py`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from taut.serving.runtime import SIZINGS, Cost, Profile

_BATCH_ROWS_MIN: Final = (
    8  # for the line's length only: two batches of a model that gains nothing from batching are too few
)
_RELAXED: Final = 0.8


class Wait(msgspec.Struct, gc=False, eq=False):
    """How long a request waited for a worker, the last time where it was tried again; and by what its answer's worker is recorded."""

    seconds: float = 0.0
    worker: str = ""


class Item(msgspec.Struct, eq=False):
    """One request that waits for a worker. Times in seconds of one monotonic clock.

    feed: its tensors by name. answer: where its outcome goes; the line only hands it on.
    attempts: how often it was given to a worker that then died. alone: it gets a batch of its own, since one of a
    batch that failed may be to blame. wait: told how long it waited from since_s until a worker took it.
    """

    rows: int
    deadline_s: float
    priority: int
    caller: str
    feed: Any = None
    answer: Any = None
    attempts: int = 0
    alone: bool = False
    wait: Wait | None = None
    since_s: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the measured cost allows. batch_rows: of one batch. line_rows: that may wait."""

    cost: Cost
    batch_rows: int
    line_rows: int

    def seconds(self, rows: int) -> float:
        """Return how long a batch takes."""
        return self.cost.us(rows) / 1e6


def plan(cost: Cost, *, workers: int, latency_s: float, profile: Profile = "latency") -> Plan:
    """Return the plan for `workers` of this cost. latency_s: what an answer may take; a batch gets its profile's share."""
    sizing = SIZINGS[profile]
    rows = sizing.batch_rows(cost, latency_s)
    line = sizing.batches * workers * max(rows, _BATCH_ROWS_MIN)
    in_time = int(workers * rows * (latency_s * 1e6) / max(cost.us(rows), 1.0))
    return Plan(cost=cost, batch_rows=rows, line_rows=max(1, min(line, in_time)))


class Pace:
    """How long batches really take against what was measured at load, on a machine that others use too.

    The smoothed mean and mean deviation of the ratio, as TCP keeps them of its round trips (RFC 6298). One stall counts
    four times the mean at most. An estimate that turns everything away would never be corrected, so `relax` lowers it.
    """

    def __init__(self) -> None:
        self.mean = 1.0
        self.deviation = 0.0

    @property
    def factor(self) -> float:
        return self.mean + self.deviation

    def observe(self, ratio: float) -> None:
        error = min(ratio, 4.0 * self.mean) - self.mean
        self.mean += error / 8
        self.deviation += (abs(error) - self.deviation) / 4

    def relax(self) -> None:
        self.mean *= _RELAXED
        self.deviation *= _RELAXED


class Line:
    """The requests that wait for one model."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = 0
        self._count = 0
        self._levels: Final[dict[int, OrderedDict[str, deque[Item]]]] = {}
        self._waiting: Final[dict[str, int]] = {}  # rows by caller
        self._owed: Final[dict[str, int]] = {}  # rows by caller that he had beyond his turns

    def __len__(self) -> int:
        return self._count

    def offer(self, item: Item) -> list[Item]:
        """Let a request wait; return those that are turned away for it, `item` itself among them where it is the one."""
        self._put(item)
        turned_away = []
        while self.rows > self.plan.line_rows and self._count > 1:
            victim = self._victim()
            self.remove(victim)
            turned_away.append(victim)
            if victim is item:
                break
        return turned_away

    def put_back(self, item: Item) -> None:
        """Let a request wait again that was taken and not answered, whatever the line's bound."""
        self._put(item)

    def take(self, now_s: float, *, share: float = 1.0) -> tuple[list[Item], list[Item]]:
        """Return (the next batch, those that it is too late for); both leave the line.

        share: of a whole batch, for a worker that has yet to show that it is well.
        """
        most = max(1, int(self.plan.batch_rows * share))
        newest_first = self.rows > self.plan.line_rows // 2
        batch: list[Item] = []
        late: list[Item] = []
        rows, earliest_s = 0, float("inf")
        for priority in sorted(self._levels, reverse=True):
            level = self._levels[priority]
            while level:
                caller = self._next(level)
                line = level[caller]
                item = line[-1] if newest_first else line[0]
                if now_s + self.plan.seconds(item.rows) > item.deadline_s:
                    self.remove(item)
                    late.append(item)
                    continue
                end_s = now_s + self.plan.seconds(rows + item.rows)
                full = rows + item.rows > most or end_s > min(earliest_s, item.deadline_s) or item.alone
                if batch and full:
                    return batch, late
                self.remove(item)
                if caller in level:
                    level.move_to_end(caller)
                if item.rows > 1 and self._count:
                    self._owed[caller] = self._owed.get(caller, 0) + item.rows - 1
                batch.append(item)
                rows += item.rows
                earliest_s = min(earliest_s, item.deadline_s)
                if item.alone:
                    return batch, late
        return batch, late

    def _next(self, level: OrderedDict[str, deque[Item]]) -> str:
        """Return whose turn it is: the first who owes nothing; whoever is passed over pays a row, or what the least of all owes."""
        owed = self._owed
        if not owed:
            return next(iter(level))
        while True:
            for caller in tuple(level):
                if not owed.get(caller):
                    return caller
                self._pay(caller, 1)
                level.move_to_end(caller)
            least = min(owed.get(caller, 0) for caller in level)
            for caller in level if least else ():
                self._pay(caller, least)

    def _pay(self, caller: str, rows: int) -> None:
        self._owed[caller] -= rows
        if not self._owed[caller]:
            del self._owed[caller]

    def remove(self, item: Item) -> bool:
        """Take a request out; return whether it was there."""
        level = self._levels.get(item.priority)
        line = None if level is None else level.get(item.caller)
        if level is None or line is None or item not in line:
            return False
        if line[-1] is item:
            line.pop()
        else:
            line.remove(item)
        if not line:
            del level[item.caller]
        if not level:
            del self._levels[item.priority]
        self.rows -= item.rows
        self._count -= 1
        if not self._count:
            self._owed.clear()  # nobody waits for whoever had more than his turns
        self._waiting[item.caller] -= item.rows
        if not self._waiting[item.caller]:
            del self._waiting[item.caller]
        return True

    def clear(self) -> list[Item]:
        """Empty the line and return what was in it."""
        items = list(self._all())
        for item in items:
            self.remove(item)
        return items

    def _put(self, item: Item) -> None:
        level = self._levels.setdefault(item.priority, OrderedDict())
        level.setdefault(item.caller, deque()).append(item)
        self.rows += item.rows
        self._count += 1
        self._waiting[item.caller] = self._waiting.get(item.caller, 0) + item.rows

    def _victim(self) -> Item:
        """Return the oldest request, of the lowest priority, of the caller with the most waiting at it."""
        level = self._levels[min(self._levels)]
        greedy = max(level, key=lambda caller: self._waiting[caller])
        return level[greedy][0]

    def _all(self) -> Iterator[Item]:
        for level in self._levels.values():
            for line in level.values():
                yield from line
