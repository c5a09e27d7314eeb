"""How long to look for what is expected before sleeping: waking a sleeper costs more than a small model does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_CROWDED_NS: Final = 100_000  # a look and a yield take 2 us where nobody else wants the processor
_REST: Final = 256


class Poll:
    """Whether one waiter looks or sleeps, learnt from how long it waited; a relative of KVM's `halt_poll_ns`.

    most_ns: the longest that it looks. What comes within that time opens the window whole; what takes longer halves it,
    so that a waiter wastes next to no processor time on what comes rarely or slowly. Where others want the processor the
    window stays closed for the next 256 waits.
    """

    def __init__(
        self,
        most_ns: int,
        *,
        counter_ns: Callable[[], int] = time.perf_counter_ns,
        give_way: Callable[[], object] = os.sched_yield,
    ) -> None:
        self._window_ns = 0
        self._rest = 0
        self._most_ns: Final = most_ns
        self._counter_ns: Final = counter_ns
        self._give_way: Final = give_way
        self._began_ns = self._looked_ns = 0

    def begin(self) -> None:
        """Begin to wait."""
        self._began_ns = self._looked_ns = self._counter_ns()

    def again(self) -> bool:
        """Return whether to look once more, after whoever else waits for this processor had it."""
        if self._looked_ns - self._began_ns >= self._window_ns:
            return False
        self._give_way()
        now_ns = self._counter_ns()
        if now_ns - self._looked_ns > _CROWDED_NS:
            self._window_ns, self._rest = 0, _REST
        self._looked_ns = now_ns
        return True

    def end(self) -> None:
        """What was waited for is there: learn from how long it took."""
        if self._rest:
            self._rest -= 1
        elif self._counter_ns() - self._began_ns <= self._most_ns:
            self._window_ns = self._most_ns
        else:
            self._window_ns //= 2
