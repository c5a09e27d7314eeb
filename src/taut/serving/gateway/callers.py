"""Who asks, and how often: counted beside the grant that each request looks up anyway."""

from __future__ import annotations

from typing import Final

import msgspec

_MOST: Final = 4096
OTHERS: Final = "?"
"""Under which callers are counted for whom there is no room; no principal can have this name."""


class Tally(msgspec.Struct, gc=False):
    """How often one caller asked one endpoint since the gateway began. swept: what that was at the last sweep. scored: for how
    many a model worked, and model_ns how long."""

    asked: int = 0
    swept: int = 0
    scored: int = 0
    model_ns: int = 0


class Callers:
    """Requests that policy let through, by principal and endpoint; those beyond a quota count too. One event loop owns it.

    most: bound on pairs that are counted; callers beyond it are one caller together.
    """

    def __init__(self, *, most: int = _MOST) -> None:
        self._most: Final = most
        self._tallies: Final[dict[tuple[str, str], Tally]] = {}

    def tally(self, key: tuple[str, str]) -> Tally:
        """Return the count of (endpoint, principal), for whoever keeps it until the next sweep."""
        found = self._tallies.get(key)
        if found is None:
            if len(self._tallies) >= self._most:
                key = (key[0], OTHERS)
                found = self._tallies.get(key)
            if found is None:
                found = self._tallies[key] = Tally()
        return found

    def sweep(self) -> None:
        """Forget whoever did not ask since the last sweep; for a moment at which nobody keeps a tally."""
        for key, tally in tuple(self._tallies.items()):
            if tally.asked == tally.swept:
                del self._tallies[key]
            tally.swept = tally.asked

    def reading(self) -> dict[str, dict[str, int]]:
        """Return principal -> endpoint -> count; one that was swept is absent, and begins at nothing."""
        found: dict[str, dict[str, int]] = {}
        for (endpoint, principal), tally in self._tallies.items():
            found.setdefault(principal, {})[endpoint] = tally.asked
        return found

    def costs(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return principal -> endpoint -> (requests for which a model worked, microseconds that it took), as `reading` does."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for (endpoint, principal), tally in self._tallies.items():
            if tally.scored:
                found.setdefault(principal, {})[endpoint] = (tally.scored, tally.model_ns // 1000)
        return found
