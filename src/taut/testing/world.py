"""Clocks, identifiers and randomness that tests own."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta


class ManualClock:
    """A clock that moves only when it is told to, or when somebody sleeps on it (which takes no real time)."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = timedelta(0)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._start + self._passed

    def monotonic_s(self) -> float:
        return self._passed.total_seconds()

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass. Raises ValueError on a negative amount: use `jump` for a wall clock that was set."""
        amount = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        if amount < timedelta(0):
            raise ValueError("time does not go back: use jump() to set the wall clock")
        with self._lock:
            self._passed += amount

    def jump(self, amount: timedelta) -> None:
        """Set the wall clock forward or back by `amount`; monotonic time does not notice."""
        with self._lock:
            self._start += amount


class SequenceIds:
    """Identifiers that count: the same test makes the same ones."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def new(self, prefix: str) -> str:
        with self._lock:
            self._next += 1
            return f"{prefix}_{self._next:026d}"


class SeededRandom:
    """Randomness that a seed decides. Never for keys outside tests."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a test double; repeatable on purpose
        self._lock = threading.Lock()

    def bytes(self, n: int) -> bytes:
        with self._lock:
            return self._random.randbytes(n)

    def uniform(self) -> float:
        with self._lock:
            return self._random.random()
