"""Trying again what a passing fault stopped: with backoff, jitter and a budget, and only that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from taut.core.errors import Unavailable
from taut.ports.world import Clock, Random

T = TypeVar("T")


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long. Waits are uniform in [0, base × 2ⁿ), at most `cap_s`, in all at most `budget_s`.

    Full jitter: Brooker, Exponential backoff and jitter, AWS Architecture Blog, 2015.
    """

    attempts: int = 5
    base_s: float = 0.2
    cap_s: float = 10.0
    budget_s: float = 60.0


def with_retries(do: Callable[[], T], *, retry: Retry, clock: Clock, random: Random) -> T:
    """Call `do` again while it raises Unavailable. Everything else, and the last Unavailable, goes through."""
    waited = 0.0
    for attempt in range(1, retry.attempts + 1):
        try:
            return do()
        except Unavailable as error:
            wait = random.uniform() * min(retry.cap_s, retry.base_s * 2**attempt)
            wait = max(wait, min(error.retry_after_s, 0.0))
            if attempt == retry.attempts or waited + wait > retry.budget_s:
                raise
            clock.sleep(wait)
            waited += wait
    raise AssertionError("a retry has at least one attempt")
