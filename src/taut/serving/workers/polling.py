"""How long to look for what is expected before sleeping: waking a sleeper costs more than a small model does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_CROWDED_NS: Final = 100_000  # a look and a yield take 2 us where nobody else wants the processor
_REST_MIN: Final = 4
_REST_MAX: Final = 256
_CALM: Final = 8


class Poll:
    """Whether one waiter looks or sleeps, learnt from how long it waited; a relative of KVM's `halt_poll_ns`.

    most_ns: the longest that it looks. What comes within that time opens the window whole; what takes longer halves it,
    so that a waiter wastes next to no processor time on what comes rarely or slowly. Where others want the processor the
    window stays closed for the next 4 waits, and for twice as many each time that they want it again, 256 at most; each
    wait that nobody disturbs takes an eighth of that back. So who stood still once looks again at once, and who does in
    more than a sixth of his waits, where looking would cost more than it saves, hardly ever.
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
        self._next_rest = _REST_MIN
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
            self._window_ns, self._rest = 0, self._next_rest
            self._next_rest = min(_REST_MAX, 2 * self._next_rest)
        self._looked_ns = now_ns
        return True

    def end(self) -> None:
        """What was waited for is there: learn from how long it took."""
        if self._rest:
            self._rest -= 1
        elif self._counter_ns() - self._began_ns <= self._most_ns:
            if self._window_ns:  # it was looked for, and nobody came between
                self._next_rest = max(_REST_MIN, self._next_rest - -(-self._next_rest // _CALM))
            self._window_ns = self._most_ns
        else:
            self._window_ns //= 2
