"""The capacity alarm: more load than there is room for, for longer than scaling takes. It names nobody and is no attack."""

from __future__ import annotations

from typing import Final

from taut.core.errors import InvalidInput


class CapacityWatch:
    """Says since when the load has been beyond what the fleet carries, once that lasts longer than `scaling_lag_s`."""

    def __init__(self, *, scaling_lag_s: float) -> None:
        if scaling_lag_s < 0:
            raise InvalidInput(f"scaling_lag_s is {scaling_lag_s}: give 0 or more")
        self._lag_s: Final = scaling_lag_s
        self._since_s: float | None = None

    def observe(self, at_s: float, *, load: float, limit: float) -> float | None:
        """Take a load and the limit of the fleet as it is, in one unit; return since when it has been too much, or None."""
        if load <= limit:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = at_s
        since_s = self._since_s
        return since_s if since_s is not None and at_s - since_s > self._lag_s else None
