"""Clock, Ids and Random: what would otherwise be ambient. Tests own them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the wall-clock time in UTC, aware. May jump."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for time-outs and leases within one process."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """Return `prefix_` and 26 characters that sort by time of making and cannot be guessed (80 random bits)."""
        ...


class Random(Protocol):
    def bytes(self, n: int) -> bytes:
        """Return n bytes fit for keys and nonces."""
        ...

    def uniform(self) -> float:
        """Return a float in [0, 1), fit for jitter and sampling, not for secrets."""
        ...
