"""From what gateways report of models' time to who costs far more than before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.ports.world import Clock
from taut.serving.snapshot import GatewayState
from taut.trust.costs import CostWatch
from taut.trust.findings import Sighting
from taut.workflows.alarms.counts import OTHERS

Counters = dict[tuple[str, str], tuple[int, int]]


class CostSentry:
    """Feeds the watch over costs from counters that only grow while a gateway lives. One thread owns it.

    Not counted: what `CallerCounts` does not count, and callers for whom gateways have no room, since their costs are nobody's.
    """

    def __init__(self, *, clock: Clock, watch: CostWatch | None = None) -> None:
        self.watch: Final = watch or CostWatch()
        self._clock: Final = clock
        self._last: dict[tuple[str, int], Counters] = {}

    def look(self, states: Sequence[GatewayState]) -> tuple[Sighting, ...]:
        """Take what gateways reported; return against whom there is enough evidence now."""
        now_s = self._clock.monotonic_s()
        spent: Counters = {}
        for state in states:
            if state.beat is None:
                continue
            now = {
                (endpoint, principal): cost
                for principal, costs in state.beat.costs.items()
                for endpoint, cost in costs.items()
                if principal != OTHERS
            }
            before = self._last.get((state.gateway, state.pid))
            self._last[state.gateway, state.pid] = now
            if before is not None:
                _add_growth(spent, before, now)
        here = {(state.gateway, state.pid) for state in states}
        self._last = {key: counters for key, counters in self._last.items() if key in here}
        for (endpoint, principal), (scored, micros) in sorted(spent.items()):
            self.watch.observe(endpoint, principal, scored, micros / 1e3, now_s)
        return self.watch.sightings(now_s)


def _add_growth(spent: Counters, before: Counters, now: Counters) -> None:
    """Add to `spent` by what counters grew; one that is lower was forgotten meanwhile, and began at nothing."""
    for key, (scored, micros) in now.items():
        known = before.get(key, (0, 0))
        if scored < known[0]:
            known = (0, 0)
        so_far = spent.get(key, (0, 0))
        spent[key] = (so_far[0] + scored - known[0], so_far[1] + micros - known[1])
