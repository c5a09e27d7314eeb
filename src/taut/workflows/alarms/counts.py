"""How often each caller asked, over all gateways, from the counters that they report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from taut.serving.snapshot import GatewayState

OTHERS: Final = "?"
"""As whom gateways count callers for whom they have no room."""

_GONE_AFTER: Final = 60
"""Reports in which a gateway may be absent, while it reconnects, before it is taken for another one."""


class CallerCounts:
    """Requests by principal since the last window, from counters that only grow while a gateway lives.

    Not counted: what a gateway answered between its last report and its death, and what gateways answered before they were
    first heard here, since nobody knows when that was.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], dict[str, int]] = {}
        self._absent: dict[tuple[str, int], int] = {}
        self._window: Counter[str] = Counter()

    def take(self, states: Sequence[GatewayState]) -> None:
        """Take what gateways reported last; the same report again adds nothing."""
        heard = {(one.gateway, one.pid): one.beat for one in states if one.beat is not None}
        for key, beat in heard.items():
            now = {principal: sum(asked.values()) for principal, asked in beat.callers.items()}
            before = self._last.get(key)
            if before is not None:
                for principal, count in now.items():
                    known = before.get(principal, 0)
                    self._window[principal] += count - known if count >= known else count
            self._last[key] = now
        self._absent = {key: self._absent.get(key, 0) + 1 for key in self._last if key not in heard}
        for key, times in self._absent.items():
            if times > _GONE_AFTER:
                del self._last[key]

    def close_window(self) -> dict[str, int]:
        """Return the counts since the last call, and begin anew."""
        found, self._window = dict(self._window), Counter()
        return {principal: count for principal, count in found.items() if count}
