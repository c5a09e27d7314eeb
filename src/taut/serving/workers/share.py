"""How much processor time a worker may take, and whether it has to stand still for what it took beyond that."""

from __future__ import annotations

import time
from typing import Final

IDLE_SHARE: Final = 0.2
"""Of its processors, what a worker may take while it has no batch: for what it does between two of them."""
_BURST_S: Final = 1.0
_DEBT_S: Final = 4.0  # a processor: what it owes beyond that is forgiven, so that it comes back
_PROCESS_CLOCK: Final = 2  # CPUCLOCK_SCHED of a whole process


class Credit:
    """Processor time that a worker has left: a token bucket, filled as it works and spent by all of its threads.

    cpus: processors that it may keep busy while it has a batch, which may be changed; a fifth of that while it has none. now_s: since when.

    Guarantees: over any time a worker that stands still whenever `settle` says so takes no more than its share of it and a
    burst of one second a processor, and what it takes between two looks, of which more than four seconds a processor are
    forgiven. Not guaranteed: anything between two looks.
    Source: token bucket, Turner 1986.
    """

    def __init__(self, cpus: float, now_s: float) -> None:
        self.left_s = cpus * _BURST_S
        self.cpus = cpus
        self._at_s = now_s
        self._used_s = 0.0
        self._busy_s = 0.0

    def settle(self, now_s: float, *, used_s: float, busy_s: float) -> bool:
        """Return whether the worker may go on.

        used_s: processor time that it has taken since it was born. busy_s: for how long it has had a batch, or was
        loading its model, since `now_s` of the constructor.
        """
        busy = min(busy_s - self._busy_s, now_s - self._at_s)
        idle = now_s - self._at_s - busy
        earned = self.cpus * (busy + IDLE_SHARE * idle)
        spent = used_s - self._used_s
        left_s = min(self.cpus * _BURST_S, self.left_s + earned) - spent
        self.left_s = max(left_s, -self.cpus * _DEBT_S)
        self._at_s, self._used_s, self._busy_s = now_s, used_s, busy_s
        return self.left_s >= 0


def processor_seconds(pid: int) -> float | None:
    """Return the processor time of all threads of a process since it was born; None where the system does not say.

    By its process clock, whose number is made of its own: one system call where /proc takes an open, a read and a
    close. Source: MAKE_PROCESS_CPUCLOCK in Linux's include/linux/posix-timers.h, clock_getcpuclockid(3).
    """
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return None
