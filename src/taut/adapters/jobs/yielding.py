"""A job that stands still while requests need the machine more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Final

LONGEST_S: Final = 600.0

Yields = Callable[[], bool]
"""Whether something else goes first now; asked many times a second."""


def never() -> bool:
    """Nothing goes first."""
    return False


class Yielding:
    """Stops and continues the processes of one job. paused_s: for how long it stood still; no time-out counts that.

    Guarantees: a job stands still for at most `LONGEST_S` at a stretch, then it runs for as long, whatever asks for the machine.
    Not guaranteed: that a process that was just forked is stopped before the next look. Memory is not given back.
    """

    def __init__(self, yields: Yields, *, tell: Callable[[int, int], None] = os.kill) -> None:
        self._yields: Final = yields
        self._tell: Final = tell
        self._since_s: float | None = None
        self._until_s = 0.0
        self._paused_s = 0.0

    def paused_s(self, now_s: float) -> float:
        return self._paused_s + (0.0 if self._since_s is None else now_s - self._since_s)

    @property
    def stands(self) -> bool:
        """Whether the job stands still now."""
        return self._since_s is not None

    def look(self, pids: Sequence[int], now_s: float) -> None:
        """Stop or continue. pids: of the job, without its keeper, who must hear when the caller is gone."""
        wanted = self._yields() and now_s >= self._until_s
        if self._since_s is not None and now_s - self._since_s >= LONGEST_S:
            wanted, self._until_s = False, now_s + LONGEST_S
        if wanted:
            self._since_s = now_s if self._since_s is None else self._since_s
            self._signal(pids, signal.SIGSTOP)  # again at each look: some may have been forked meanwhile
        elif self._since_s is not None:
            self._paused_s, self._since_s = self.paused_s(now_s), None
            self._signal(pids, signal.SIGCONT)

    def _signal(self, pids: Sequence[int], number: int) -> None:
        for pid in pids:
            try:
                self._tell(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # it has ended, or its number is somebody else's by now
