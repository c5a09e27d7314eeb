"""What was decided, and why."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Mode = Literal["stable", "panic", "idle", "woken", "blind"]
"""`idle`: nothing was asked for so long that nobody is needed. `blind`: no replica tells anything, so nothing is changed."""
Bound = Literal["", "minimum", "maximum", "budget", "step", "forecast", "cooldown", "pace", "tolerance"]

_UNITS: Final = {
    "concurrency": ("requests under way", "a replica"),
    "cpu": ("processors busy", "a replica"),
    "gpu": ("accelerators busy", "a replica"),
    "wait_ms": ("ms of waiting", "at most"),
    "latency": ("of the objective for latency", "at most"),
}
_MODES: Final = {
    "blind": "no replica tells anything, so nothing is changed",
    "woken": "requests wait and there is no replica",
    "idle": "nothing was asked for so long that nobody is needed",
}
_BOUNDS: Final[dict[Bound, str]] = {
    "minimum": "never fewer than the minimum",
    "maximum": "never more than the maximum",
    "budget": "the budget of the day allows no more",
    "step": "no larger step at once",
    "forecast": "as many are usual at this hour of the week",
    "cooldown": "more was needed a short while ago",
    "pace": "changed a moment ago",
    "tolerance": "within the tolerance",
}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A pool shall have `n` replicas, which has `before` now.

    signal: what asked for most, empty where nothing told anything. observed: the sum over replicas of a signal that adds up, else its value; target: what
    is aimed at. computed: what it asks for, before bounds. bound: what stood between the two. told: what was found wrong on the way.
    """

    pool: str
    n: int
    before: int
    mode: Mode
    signal: str = ""
    observed: float = 0.0
    target: float = 0.0
    computed: int = 0
    bound: Bound = ""
    told: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return self.n != self.before

    @property
    def strained(self) -> bool:
        """Whether more is needed than there is, now or in a burst that has not passed."""
        return self.mode == "panic" or self.computed > self.before

    @property
    def why(self) -> str:
        """Return the reason in words, for the scale log and for people."""
        if self.mode in _MODES:
            said = _MODES[self.mode]
        elif not self.signal:
            said = "nothing asks for another number"
        else:
            what, per = _UNITS[self.signal]
            said = f"{self.observed:.3g} {what}, {self.target:.3g} {per}: asks for {self.computed}"
            said += " in a burst" if self.mode == "panic" else ""
        if self.bound:
            said += f"; {_BOUNDS[self.bound]}"
        return "; ".join((said, *self.told))
