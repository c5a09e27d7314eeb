"""Denials in the ledger: few leaves, however many there are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from taut.ports.records import Records, transact
from taut.ports.world import Clock
from taut.trust.ledger import Entry, Ledger

DENIED: Final = "access.denied"
_HOUR_S: Final = 3600
_PRINCIPALS_MAX: Final = 10_000


class Denials:
    """Counts what each principal was denied, and leaves a leaf at the 1st, 10th, 100th … time of an hour.

    So whoever asks a million times for what he may not have leaves seven leaves. The body says how often it was so far, and
    the action that was denied last. Safe for threads. Not guaranteed: that what was counted since the last leaf survives
    the process; that principals beyond 10,000 an hour are all remembered (one who is forgotten leaves one leaf more).
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._counts: Final[OrderedDict[str, tuple[int, int]]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def note(self, principal: str, action: str, resource: str) -> None:
        """Count a denial. Raises as Records does, where a leaf is due and cannot be written."""
        times = self._count(principal)
        if str(times).strip("0") == "1":
            entry = Entry(DENIED, resource[:512], principal, {"action": action, "times": times})
            transact(self._records, lambda tx: self._ledger.append(tx, entry))

    def _count(self, principal: str) -> int:
        hour = int(self._clock.now().timestamp()) // _HOUR_S
        with self._lock:
            began, times = self._counts.pop(principal, (hour, 0))
            times = times + 1 if began == hour else 1
            self._counts[principal] = (hour, times)
            if len(self._counts) > _PRINCIPALS_MAX:
                self._counts.popitem(last=False)
        return times
