"""Breakers: what keeps failing is left alone for a while, and believed again only after one request has tried it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

State = Literal["closed", "open", "half-open"]
_CALLERS: Final = 256  # of each half of the window that are told apart; the others count as one
_REST: Final = ""
_LOOKS: Final = 16  # callers looked at for each failure, so that judging stays cheap however many there are


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long.

    window_s: over which outcomes count. requests: fewer in it say nothing. share: it opens above this share of
    failures. cool_down_s: until the first probe; each probe that fails doubles it, up to cool_down_max_s.
    """

    window_s: float = 10.0
    requests: int = 20
    share: float = 0.5
    cool_down_s: float = 1.0
    cool_down_max_s: float = 30.0


class Breaker:
    """Watches one dependency. Times are nanoseconds of one monotonic clock; one event loop owns it.

    Closed, everything may try. Open, nothing may, until the cool-down is over. Half-open, one request tries: its
    success closes the breaker, its failure opens it for twice as long. A probe that says nothing for as long as the
    cool-down is given up, and another may try.

    The share of failures is the mean of the callers' own shares: each caller has one voice, however often he asks, so
    that one whose requests always fail cannot shut the others out.

    Guarantees: an outcome counts in the state in which its request began only; memory is bounded.
    Not guaranteed: that a caller whom nobody else asks beside is not judged alone.
    Source: Nygard, Release It!, 2007, without the voices.
    """

    def __init__(self, of: str, settings: BreakerSettings | None = None) -> None:
        given = settings or BreakerSettings()
        self.of: Final = of
        self.state: State = "closed"
        self.opened = 0
        self.why = ""
        self._settings: Final = given
        self._half_ns: Final = int(given.window_s / 2 * 1e9)
        self._now: dict[str, list[int]] = {}
        self._before: dict[str, list[int]] = {}
        self._turned_ns = 0
        self._unjudged = 0
        self._generation = 1
        self._cool_s = given.cool_down_s
        self._retry_ns = 0

    def enter(self, now_ns: int) -> int:
        """Return a permit to try, which the outcome is told with; 0 where the request must not."""
        if self.state == "closed":
            return self._generation
        if now_ns < self._retry_ns:
            return 0
        self.state = "half-open"
        self._generation += 1
        self._retry_ns = now_ns + int(self._cool_s * 1e9)
        return self._generation

    def succeeded(self, permit: int, caller: str, now_ns: int) -> None:
        if permit != self._generation:
            return
        if self.state == "half-open":
            self._close()
        else:
            self._outcomes(caller, now_ns)[0] += 1

    def failed(self, permit: int, caller: str, now_ns: int, why: str) -> None:
        """Count a failure. why: shown to everybody while the breaker is open, so it tells nothing of the request."""
        if permit != self._generation:
            return
        if self.state == "half-open":
            self._cool_s = min(2 * self._cool_s, self._settings.cool_down_max_s)
            self._open(now_ns, why)
            return
        self._outcomes(caller, now_ns)[1] += 1
        self._unjudged += 1
        if self._unjudged * _LOOKS < len(self._now) + len(self._before):
            return
        self._unjudged = 0
        if self._tripped():
            self._open(now_ns, why)

    def left(self, permit: int, now_ns: int) -> None:
        """Say that a request ended without an outcome that counts; where it was the probe, another may try."""
        if permit == self._generation and self.state == "half-open":
            self._retry_ns = now_ns

    def refuses(self, now_ns: int) -> bool:
        """Whether a request would not be let through now; unlike `enter`, it changes nothing."""
        return self.state != "closed" and now_ns < self._retry_ns

    def retry_after_s(self, now_ns: int) -> float:
        return max(0.0, (self._retry_ns - now_ns) / 1e9)

    def reading(self, now_ns: int) -> dict[str, object]:
        """Return its state as a document."""
        found: dict[str, object] = {"of": self.of, "state": self.state, "opened": self.opened}
        if self.state != "closed":
            found |= {"why": self.why, "next_try_in_s": round(self.retry_after_s(now_ns), 3)}
        return found

    def _outcomes(self, caller: str, now_ns: int) -> list[int]:
        """Return the counts [succeeded, failed] of a caller in the running half of the window."""
        elapsed_ns = now_ns - self._turned_ns
        if elapsed_ns >= self._half_ns:
            self._before = self._now if elapsed_ns < 2 * self._half_ns else {}
            self._now, self._turned_ns = {}, now_ns
        found = self._now.get(caller)
        if found is None:
            if len(self._now) >= _CALLERS:
                caller = _REST
            found = self._now.setdefault(caller, [0, 0])
        return found

    def _tripped(self) -> bool:
        total, shares = 0, 0.0
        callers = {*self._now, *self._before}
        for caller in callers:
            good, bad = self._now.get(caller, (0, 0))
            good_before, bad_before = self._before.get(caller, (0, 0))
            count = good + bad + good_before + bad_before
            total += count
            shares += (bad + bad_before) / count
        return total >= self._settings.requests and shares > self._settings.share * len(callers)

    def _open(self, now_ns: int, why: str) -> None:
        self.state, self.why = "open", why
        self.opened += 1
        self._generation += 1
        self._retry_ns = now_ns + int(self._cool_s * 1e9)
        self._now, self._before = {}, {}

    def _close(self) -> None:
        self.state, self.why = "closed", ""
        self._generation += 1
        self._cool_s = self._settings.cool_down_s
        self._now, self._before = {}, {}


class Breakers:
    """The breakers of one gateway by what they watch; they outlive epochs."""

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self._settings: Final = settings
        self._all: dict[str, Breaker] = {}

    def of(self, key: str, name: str) -> Breaker:
        """Return the breaker of a key. name: how it is shown."""
        found = self._all.get(key)
        if found is None:
            found = self._all[key] = Breaker(name, self._settings)
        return found

    def of_nodes(self, key: str, versions: Mapping[str, str]) -> dict[str, Breaker]:
        """Return a breaker for each node of a graph. key: of the graph. versions: of its nodes by name."""
        return {
            name: self.of(node_key(key, name), f"node {name!r}, {version},")
            for name, version in versions.items()
        }

    def keep(self, keys: set[str]) -> None:
        """Forget all others."""
        self._all = {key: breaker for key, breaker in self._all.items() if key in keys}


def node_key(key: str, node: str) -> str:
    return f"{key} {node}"
