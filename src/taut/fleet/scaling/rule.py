"""What a pool is scaled by: its bounds, what is aimed at, and how boldly."""

from __future__ import annotations

from math import isfinite
from typing import Final

import msgspec

from taut.core.errors import InvalidInput

ADDITIVE: Final = ("concurrency", "cpu", "gpu")
"""Signals that add up over replicas, so that what they say of the number needed does not depend on how many there are."""

REPLICAS_MAX: Final = 10_000
LONGEST_S: Final = 7200.0


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a pool is scaled. Shares are of one, durations seconds.

    minimum: what there always is, whatever a budget says; 0 lets the last one go, where `idle_s` says after how long without a
    request. maximum: never more.
    What is aimed at, each None where it has no say: concurrency: requests under way in a replica; cpu: processors that it keeps
    busy; gpu: share of its accelerator's time; wait_ms: 95% of requests wait no longer for a worker; latency: 95% of
    answers take no longer than this share of their endpoint's objective.
    replica_hours: what may be spent in a day, UTC; None for any.
    stable_s, panic_s: over which load is averaged, at ease and in a burst. panic_ratio: how many times what is ready must be
    needed for a burst. cooldown_s: for how long less must have been enough before there is less. tolerance: what the load may be off before
    anything changes. up, down: by which factor what is ready may grow or shrink at once. lead_s: how far ahead the forecast looks.
    """

    pool: str
    minimum: int = 1
    maximum: int = 1
    concurrency: float | None = None
    cpu: float | None = None
    gpu: float | None = None
    wait_ms: float | None = None
    latency: float | None = None
    replica_hours: float | None = None
    idle_s: float | None = None
    stable_s: float = 60.0
    panic_s: float = 6.0
    panic_ratio: float = 2.0
    cooldown_s: float = 300.0
    tolerance: float = 0.1
    up: float = 10.0
    down: float = 2.0
    lead_s: float = 120.0

    def __post_init__(self) -> None:
        said = f"pool {self.pool}: "
        if not 0 <= self.minimum <= self.maximum <= REPLICAS_MAX or self.maximum < 1:
            raise InvalidInput(
                f"{said}minimum {self.minimum} and maximum {self.maximum}: give 0 <= minimum <= maximum, and at least 1 and at "
                f"most {REPLICAS_MAX} for the maximum"
            )
        aims = (self.concurrency, self.cpu, self.gpu, self.wait_ms, self.latency)
        if all(aim is None for aim in aims):
            raise InvalidInput(f"{said}nothing is aimed at: give concurrency, cpu, gpu, wait_ms or latency")
        spans = (self.stable_s, self.panic_s, self.cooldown_s)
        positive = (*aims, *spans, self.replica_hours, self.idle_s)
        if not all(isfinite(value) and value > 0 for value in positive if value is not None):
            raise InvalidInput(
                f"{said}what is aimed at, and durations, must be finite and above 0: mend the rule"
            )
        if max(self.stable_s, self.cooldown_s) > LONGEST_S:
            raise InvalidInput(f"{said}stable_s and cooldown_s are at most {LONGEST_S:g}: mend the rule")
        if self.panic_s > self.stable_s or not (isfinite(self.lead_s) and 0 <= self.lead_s <= 3600):
            raise InvalidInput(f"{said}panic_s is at most stable_s, and lead_s 0 to 3600: mend the rule")
        if min(self.panic_ratio, self.up, self.down) <= 1 or not 0 <= self.tolerance < 0.5:
            raise InvalidInput(
                f"{said}panic_ratio, up and down are above 1, and tolerance 0 to 0.5: mend the rule"
            )
        if not self.minimum and self.idle_s is None:
            raise InvalidInput(f"{said}minimum is 0: say by idle_s after how long without a request")

    @property
    def aims(self) -> dict[str, float]:
        """Return what is aimed at by the signals that add up."""
        found = {name: getattr(self, name) for name in ADDITIVE}
        return {name: aim for name, aim in found.items() if aim is not None}
