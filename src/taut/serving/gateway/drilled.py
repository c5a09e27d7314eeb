"""A version that does wrong on purpose, in a drill: so that people see whether it is noticed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from taut.serving.errors import BadAnswer
from taut.serving.gateway.scorer import Features, Scorer
from taut.serving.gateway.tensors import Batch
from taut.serving.memory import Resident
from taut.serving.snapshot import PlantedFault, ServedModel


def scorer_of(served: ServedModel, resident: Resident) -> Scorer:
    """Return what asks a version; one with a planted fault is asked through it, all others as ever."""
    return Scorer(served, resident) if served.fault is None else DrilledScorer(served, resident, served.fault)


def carry_over(before: Iterable[Scorer], now: Iterable[Scorer]) -> None:
    """Let a release that was drilled before be counted on, so that `most` holds however many snapshots come meanwhile."""
    tallies = {one.served.release: one.tally for one in before if isinstance(one, DrilledScorer)}
    for one in now:
        if isinstance(one, DrilledScorer):
            one.tally = tallies.get(one.served.release, one.tally)


class Tally:
    """How often a release with a fault was asked in this gateway, and how often the fault struck."""

    __slots__ = ("asked", "struck")

    def __init__(self) -> None:
        self.asked = self.struck = 0


class DrilledScorer(Scorer):
    """Asks a version, and fails or is late as a drill says: evenly, one of so many, and `most` times at most.

    A model in workers, and a graph, is not made late.
    """

    def __init__(self, served: ServedModel, resident: Resident, fault: PlantedFault) -> None:
        super().__init__(served, resident)
        self._fault: Final = fault
        self.tally = Tally()

    def rows_within(self, inline_us: float) -> int:
        """Return 0 where it is late: what is answered at once cannot wait."""
        return 0 if self._fault.slow_ms else super().rows_within(inline_us)

    def late_s(self) -> float:
        return self._fault.slow_ms / 1e3 if self._fault.slow_ms and self._strikes() else 0.0

    def feed(self, batch: Batch, features: Features) -> Any:
        tally, failing = self.tally, self._fault.failing
        tally.asked += 1
        due = int(tally.asked * failing) > int((tally.asked - 1) * failing)
        if due and self._strikes():
            raise BadAnswer(f"{self.served.version} fails on purpose: a drill is under way")
        return super().feed(batch, features)

    def _strikes(self) -> bool:
        if self.tally.struck >= self._fault.most:
            return False
        self.tally.struck += 1
        return True
