"""How far a share may stray before it is strange, by what the fleet is doing: given at first, then learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final, Literal

FleetState = Literal["stable", "scaling", "draining", "incident"]
"""scaling: desired or actual replicas changed, or a declared event, in the last ten minutes."""

GIVEN: Final[dict[FleetState, float]] = {"stable": 3.0, "scaling": 8.0, "draining": 8.0, "incident": 2.0}
_LEAST: Final = 1.5
_MOST: Final = 30.0
_ENOUGH: Final = 20_000
_BINS: Final = 400
_PER_BIN: Final = 0.025
_LOW, _HIGH = 0.99, 0.999
_FALSE_A_MINUTE: Final = 0.01
_NORMAL: Final = NormalDist()


class Margins:
    """The ratio to its usual share beyond which a caller's share is held against him, by state of the fleet.

    Before a state has shown 20,000 multipliers the margin is given: 3 while the fleet is stable, 8 while it scales. After
    that it is what its own past says: the 99.9% quantile of the multipliers seen in that state, and for many callers
    further out, to where one in a hundred minutes would have a single caller beyond it, if logarithms of multipliers have
    a normal tail between their 99% and 99.9% quantiles. Never below 1.5 or above 30: twice that is found whatever was
    learned. Draining has the margin of scaling; an incident that of a stable fleet, at most 2.
    """

    def __init__(self) -> None:
        self._seen: Final[dict[FleetState, list[int]]] = {}

    def observe(self, state: FleetState, multiplier: float) -> None:
        """Learn from one caller's share in one minute, as a multiple of his usual one; above 0."""
        bins = self._seen.setdefault(_learns_as(state), [0] * _BINS)
        at = int(math.log(multiplier) / _PER_BIN) + _BINS // 2
        bins[min(max(at, 0), _BINS - 1)] += 1

    def adopt(self, others: Margins) -> None:
        """Begin with what others have learned."""
        self._seen.update({state: list(bins) for state, bins in others._seen.items()})

    def seen(self) -> dict[str, list[int]]:
        """Return what was learned, for whoever keeps it."""
        return {state: list(bins) for state, bins in self._seen.items()}

    def recall(self, seen: Mapping[str, Sequence[int]]) -> None:
        """Begin with what was kept; what is of another form is left out."""
        for state in GIVEN:
            if len(bins := seen.get(state, ())) == _BINS:
                self._seen[state] = list(bins)

    def margin(self, state: FleetState, *, callers: int) -> float:
        """Return the margin for so many callers."""
        bins = self._seen.get(_learns_as(state), ())
        found = GIVEN[state] if sum(bins) < _ENOUGH else _beyond(bins, callers)
        return min(found, GIVEN["incident"]) if state == "incident" else found


def _learns_as(state: FleetState) -> FleetState:
    return "scaling" if state in ("scaling", "draining") else "stable"


def _beyond(bins: list[int] | tuple[()], callers: int) -> float:
    low, high = _quantile(bins, _LOW), _quantile(bins, _HIGH)
    at_low, at_high = _NORMAL.inv_cdf(_LOW), _NORMAL.inv_cdf(_HIGH)
    further = max(0.0, _NORMAL.inv_cdf(1 - _FALSE_A_MINUTE / max(callers, 1)) - at_high)
    found = math.exp(high + (high - low) / (at_high - at_low) * further)
    return min(max(found, _LEAST), _MOST)


def _quantile(bins: list[int] | tuple[()], at: float) -> float:
    """Return the upper edge of the bin that the quantile lies in, as a logarithm."""
    left = sum(bins) * at
    for index, count in enumerate(bins):
        left -= count
        if left <= 0:
            return (index + 1 - _BINS // 2) * _PER_BIN
    return _BINS // 2 * _PER_BIN
