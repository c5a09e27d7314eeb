"""The places of a supervisor's children: what runs in each, when it is due again, and how it is told."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from taut.entrypoints.children import Child, Running, end

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 10.0
_FORMER_S: Final = 12.0
_BEGINS_S: Final = 0.5
_BEGIN_AT_ONCE: Final = 2  # a processor: while one waits for control, another has something to do


class Slot:
    """One child's place: what runs in it now, and when it is due again."""

    def __init__(self, child: Child) -> None:
        self.child: Final = child
        self.running: Running | None = None
        self.ready = False
        self.restarts = 0
        self.pause_s = _FIRST_PAUSE_S
        self.due_s = 0.0
        self.last_exit = ""
        self.leaving = False

    def emptied(self, now_s: float) -> Running:
        """Return what ran here and has ended. What lived long is started again soon."""
        running = self.running
        assert running is not None, "something ran here"
        if now_s - running.since_s > _STEADY_S:
            self.pause_s = _FIRST_PAUSE_S / 2
        self.running, self.ready = None, False
        return running

    def put_off(self, now_s: float, how: str) -> None:
        """Choose when it is tried again: later each time. how: it ended, or why it does not start."""
        self.last_exit = how
        self.pause_s = min(_LAST_PAUSE_S, self.pause_s * 2)
        self.due_s = now_s + self.pause_s

    def described(self) -> dict[str, Any]:
        """Return what others may know of it."""
        running = self.running
        state = "waiting" if running is None else "ready" if self.ready else "starting"
        return {
            "name": self.child.name,
            "address": self.child.address,
            "pid": None if running is None else running.pid,
            "started": None if running is None else running.started,
            "adopted": running is not None and running.adopted,
            "state": state,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }


def room_to_begin(slots: Iterable[Slot], now_s: float, *, cores: int) -> int:
    """Return how many gateways more may begin now.

    All at once they would all be late; some after others serve sooner, and none later. Who has not served after half a second
    waits for something else, and keeps nobody from beginning.
    """
    begin = sum(
        slot.child.forked and slot.running is not None and not slot.ready and now_s - slot.running.since_s < _BEGINS_S
        for slot in slots
    )  # fmt: skip
    return max(0, _BEGIN_AT_ONCE * cores - begin)


def await_gone(leaving: Sequence[Running]) -> None:
    """Wait for processes that were told to end, since the next ones need their ports; kill those that linger."""
    deadline_s = time.monotonic() + _FORMER_S
    while any(running.ended() is None for running in leaving) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    for running in leaving:
        end(running, signal.SIGKILL)
