"""What one caller's requests to one endpoint are counted against: a bucket for each level that has a limit."""

from __future__ import annotations

from taut.trust.quota.limit import Kind
from taut.trust.quota.messages import Key


class Bucket:
    """One key's tokens. turn: of the shares that `rate` and `burst` were made of. asked: units since the last claim."""

    __slots__ = ("asked", "burst", "rate", "then_s", "tokens", "turn")

    def __init__(self, tokens: float, then_s: float, rate: float, burst: float, turn: int) -> None:
        self.tokens = tokens
        self.then_s = then_s
        self.rate = rate
        self.burst = burst
        self.turn = turn
        self.asked = 0.0

    def fill(self, now_s: float) -> None:
        """Add what came since; time that goes back brings nothing."""
        if now_s > self.then_s:
            self.tokens = min(self.burst, self.tokens + (now_s - self.then_s) * self.rate)
            self.then_s = now_s

    def turn_to(self, rate: float, burst: float, turn: int, now_s: float) -> None:
        """Take other shares. Since the last look either rate may have held: the lower one is what surely came."""
        self.rate = min(self.rate, rate)
        self.fill(now_s)
        self.tokens = min(self.tokens, burst)
        self.rate, self.burst, self.turn = rate, burst, turn


class Account:
    """The keys on a request's way, and their buckets as long as they are what they were.

    takes: each gives one of its units for a request, as it begins. dues: each is charged with what the request cost, when that
    is known, and lets none pass while it owes. keys and buckets, owed, turn: kept by `Quota`; nobody else touches them.
    """

    __slots__ = ("buckets", "dues", "keys", "owed", "takes", "turn")

    def __init__(self, takes: tuple[Key, ...], dues: tuple[tuple[Kind, Key], ...] = ()) -> None:
        self.takes = takes
        self.dues = dues
        self.keys: tuple[Key, ...] = ()
        self.buckets: tuple[Bucket, ...] = ()
        self.owed: tuple[tuple[Kind, Key, Bucket], ...] = ()
        self.turn = -1
