"""A version that does wrong on purpose, in a drill: so that people see whether it is noticed."""

from __future__ import annotations

import time
from typing import Any, Final

from taut.serving.errors import BadAnswer
from taut.serving.gateway.scorer import Features, Scorer
from taut.serving.gateway.tensors import Batch
from taut.serving.memory import Resident
from taut.serving.runtime import Outputs
from taut.serving.snapshot import PlantedFault, ServedModel


def scorer_of(served: ServedModel, resident: Resident) -> Scorer:
    """Return what asks a version; one with a planted fault is asked through it, all others as ever."""
    return Scorer(served, resident) if served.fault is None else DrilledScorer(served, resident, served.fault)


class DrilledScorer(Scorer):
    """Asks a version, and fails or is late as a drill says: evenly, one of so many, and `most` times at most.

    It is late beside the event loop only; a model in workers is not made late.
    """

    def __init__(self, served: ServedModel, resident: Resident, fault: PlantedFault) -> None:
        super().__init__(served, resident)
        self._fault: Final = fault
        self._asked = self._struck = 0

    def rows_within(self, inline_us: float) -> int:
        """Return 0 where it is late: what sleeps must not hold up the loop."""
        return 0 if self._fault.slow_ms else super().rows_within(inline_us)

    def score(self, batch: Batch, features: Features) -> Outputs:
        outputs = super().score(batch, features)
        if self._fault.slow_ms and self._strikes(1.0):
            time.sleep(self._fault.slow_ms / 1e3)
        return outputs

    def feed(self, batch: Batch, features: Features) -> Any:
        self._asked += 1
        due = int(self._asked * self._fault.failing) > int((self._asked - 1) * self._fault.failing)
        if due and self._strikes(self._fault.failing):
            raise BadAnswer(f"{self.served.version} fails on purpose: a drill is under way")
        return super().feed(batch, features)

    def _strikes(self, share: float) -> bool:
        if not share or self._struck >= self._fault.most:
            return False
        self._struck += 1
        return True
