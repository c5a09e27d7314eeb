"""The real clock, identifiers and randomness of this machine."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from typing import Final

from taut.ports.world import Clock, Random

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts as ASCII, no i, l, o, u


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SystemRandom:
    """The kernel's randomness for keys; a generator seeded from it for jitter."""

    def __init__(self) -> None:
        self._jitter = random.SystemRandom()

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)

    def uniform(self) -> float:
        return self._jitter.random()


class SystemIds:
    """Identifiers of 48 bits of milliseconds and 80 random bits in base 32 (the layout of ULID, lower case).

    Two that are made within one millisecond sort at random.
    """

    def __init__(self, clock: Clock | None = None, random: Random | None = None) -> None:
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()

    def new(self, prefix: str) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000) & ((1 << 48) - 1)
        number = milliseconds << 80 | int.from_bytes(self._random.bytes(10), "big")
        return f"{prefix}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
