"""What one caller's requests to one endpoint are counted against: a bucket for each level that has a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taut.trust.quota.limit import Kind
from taut.trust.quota.messages import Key

if TYPE_CHECKING:
    from taut.trust.quota.buckets import Bucket


class Account:
    """The keys on a request's way, and their buckets as long as they are what they were.

    takes: each gives one of its units for a request, as it begins. dues: each is charged with what the request cost, when that
    is known, and lets none pass while it owes. buckets, owed, turn: kept by `Quota`; nobody else touches them.
    """

    __slots__ = ("buckets", "dues", "owed", "takes", "turn")

    def __init__(self, takes: tuple[Key, ...], dues: tuple[tuple[Kind, Key], ...] = ()) -> None:
        self.takes = takes
        self.dues = dues
        self.buckets: tuple[tuple[Key, Bucket], ...] = ()
        self.owed: tuple[tuple[Kind, Key, Bucket], ...] = ()
        self.turn = -1
