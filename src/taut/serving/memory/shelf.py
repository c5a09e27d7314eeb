"""Who stays in memory and who goes: the discipline of the budget, free of clocks, threads and models.

GreedyDual-Size: a model is worth `L` + the seconds that it takes to load, for each MiB that it takes, from the last time
that it was asked; who is worth least goes, and `L` rises to what he was worth. So of two that are asked as often, the one
that is quicker to load again or takes more room goes first, and one that nobody asks any more is worth less than every
one that somebody does, however costly it was. Where all take the same room and time, this is least recently used.

Since `L` changes only when something goes, what was asked in between is priced when the next one has to: a request
leaves nothing but the time. Source: Cao & Irani, Cost-aware WWW proxy caching algorithms, USITS 1997.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from taut.serving.memory.resident import Resident

_MIB: Final = 2**20
_LEAST_S: Final = 1e-4


class Shelf:
    """The budget and what takes part of it.

    Guarantees: what is taken is never more than the budget, unless `resize` made it smaller than what cannot go; nobody goes who
    is kept, or whom a request works with or waits for.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._taking: Final[dict[str, Resident]] = {}
        self._floor = 0.0

    def __len__(self) -> int:
        return len(self._taking)

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self._taking.values()))

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used_bytes

    @property
    def kept_bytes(self) -> int:
        """Return what is taken by models that are never evicted."""
        return sum(one.taken_bytes for one in self._taking.values() if one.keep)

    def take(self, resident: Resident, size_bytes: int) -> list[Resident] | None:
        """Give a model so much room, instead of what it has; return who had to go for it.

        None, and nothing changed, where not even all who may go would free enough.
        """
        needed = size_bytes - resident.taken_bytes - self.free_bytes
        gone = self._choose(needed, besides=resident)
        if gone is None:
            return None
        for one in gone:
            self._leave(one)
        self.used_bytes += size_bytes - resident.taken_bytes
        resident.taken_bytes = size_bytes
        self._taking[resident.key] = resident
        return gone

    def loaded(self, resident: Resident) -> None:
        """Price a model that was just loaded, or asked."""
        size_mib = max(resident.taken_bytes, 1) / _MIB
        resident.worth = self._floor + max(resident.load_s, _LEAST_S) / size_mib
        resident.priced_ns = resident.used_ns

    def leave(self, resident: Resident) -> None:
        """Give back what a model took."""
        if self._taking.get(resident.key) is resident:
            self._leave(resident)

    def resize(self, budget_bytes: int) -> list[Resident]:
        """Change the budget; return who had to go. Who may not go stays, beyond the budget, until he may."""
        self.budget_bytes = budget_bytes
        return self.shrink()

    def shrink(self) -> list[Resident]:
        """Return who had to go to be within the budget again, as far as somebody may."""
        gone = list(self._worst_first(-self.free_bytes, self._may_go()))
        for one in gone:
            self._leave(one)
        return gone

    def _choose(self, needed: int, *, besides: Resident) -> list[Resident] | None:
        if needed <= 0:
            return []
        candidates = [one for one in self._may_go() if one is not besides]
        if sum(one.taken_bytes for one in candidates) < needed:
            return None
        return list(self._worst_first(needed, candidates))

    def _may_go(self) -> list[Resident]:
        return [
            one for one in self._taking.values() if one.model is not None and not one.pins and not one.keep
        ]

    def _worst_first(self, needed: int, candidates: Iterable[Resident]) -> Iterator[Resident]:
        """Yield who goes, until so many bytes are free."""
        if needed <= 0:
            return
        for one in self._taking.values():
            if one.used_ns != one.priced_ns:
                self.loaded(one)
        for one in sorted(candidates, key=lambda one: (one.worth, one.used_ns)):
            if needed <= 0:
                return
            needed -= one.taken_bytes
            self._floor = max(self._floor, one.worth)
            yield one

    def _leave(self, resident: Resident) -> None:
        self.used_bytes -= resident.taken_bytes
        resident.taken_bytes = 0
        del self._taking[resident.key]
