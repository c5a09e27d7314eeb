"""How long somebody who found nothing waits before looking again."""

from __future__ import annotations


class Pause:
    """How long to wait before looking again: short after news, longer each time there was nothing."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._next_s = 0.005
        self.heard = 0

    def next_s(self) -> float:
        now_s, self._next_s = self._next_s, min(self._next_s * 2, self._poll_s)
        return now_s

    def rung(self, rings: int) -> None:
        self.heard = rings
        self._next_s = 0.005
