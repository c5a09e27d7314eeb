"""What one gateway may spend of budgets: credit from control, spent by arithmetic and reported once a second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Final

from taut.core.errors import Exhausted
from taut.trust.quota.account import Bucket
from taut.trust.quota.limit import SAFE_PART, WHOLE, Limit
from taut.trust.quota.messages import Credit, Key, Spending

_TOLD: Final = 1024
_MAX_KEYS: Final = 100_000


class Purse(Bucket):
    """One key's credit. Nothing comes into it with time; what is in it does not go with a lease.

    granted: that it may be spent, since this gateway began. again_s: when there is more, as control said it. helped_until_s: when
    it may next have something beside its credit, where nobody answers.
    """

    __slots__ = ("again_s", "confirmed", "granted", "helped_until_s", "pressed", "said", "said_s")

    def __init__(self, granted: float, now_s: float, turn: int) -> None:
        super().__init__(granted, now_s, 0.0, inf, turn)
        self.granted = granted
        self.again_s = self.helped_until_s = self.said_s = -inf
        self.pressed = False
        self.confirmed = self.said = (granted, 0.0)

    @property
    def spent(self) -> float:
        return self.granted - self.tokens

    def allow(self, up_to: float) -> None:
        """Take another credit; what is spent already stays so."""
        spent = self.spent
        self.granted = max(up_to, spent)
        self.tokens = self.granted - spent


class Purses:
    """The purses of one gateway. One thread owns it.

    Guarantee: what is spent of a key is at most what control allowed in all, beside the debt of what was under way, and once a
    window a tenth of an equal share, where control does not answer.
    """

    def __init__(self) -> None:
        self._purses: Final[dict[Key, Purse]] = {}

    def open(self, key: Key, limit: Limit, own: int, now_s: float, turn: int) -> Purse:
        """Return a key's purse for this turn. own: of the whole, what is this gateway's equal part."""
        purse = self._purses.get(key)
        if purse is None:
            if len(self._purses) >= _MAX_KEYS:
                raise Exhausted("too many callers with a budget at once: try again later", retry_after_s=60.0)
            purse = self._purses[key] = Purse(limit.first * own / WHOLE, now_s, turn)
        purse.turn = turn
        return purse

    def help(self, limits: Mapping[str, Limit], own: int, now_s: float) -> None:
        """Go on without control for a while: a tenth of an equal share more, once in a window."""
        for key, purse in self._purses.items():
            limit = limits.get(key[0])
            if limit is not None and now_s >= purse.helped_until_s:
                purse.allow(purse.granted + limit.burst * own / WHOLE / SAFE_PART)
                purse.helped_until_s = now_s + limit.window_s

    def keep(self, limits: Mapping[str, Limit]) -> None:
        """Forget what is limited no more."""
        for key in [key for key in self._purses if key[0] not in limits]:
            del self._purses[key]

    def spendings(self, now_s: float) -> tuple[Spending, ...]:
        """Return what control has not confirmed, for a claim of now; what is too much for one comes with the next."""
        return tuple(self._report(now_s))

    def hear(self, allowed: Iterable[Credit], asked_s: float) -> None:
        """Take the credits of a lease that answers the claim of `asked_s`."""
        for purse in self._purses.values():
            if purse.said_s == asked_s:
                purse.confirmed = purse.said
        for credit in allowed:
            purse_of = self._purses.get(credit.key)
            if purse_of is None:  # before anybody asked here: it must not begin with what is spent elsewhere
                purse_of = self._purses[credit.key] = Purse(0.0, asked_s, -1)
            purse_of.allow(credit.up_to)
            purse_of.again_s = asked_s + credit.wait_s

    def _report(self, now_s: float) -> Iterator[Spending]:
        count = 0
        for key, purse in self._purses.items():
            now = (purse.granted, purse.spent)
            if now == purse.confirmed and not purse.pressed:
                continue
            purse.said, purse.said_s = now, now_s
            yield Spending(key[0], key[1], purse.granted, purse.spent, purse.pressed)
            purse.pressed = False
            count += 1
            if count == _TOLD:
                return
