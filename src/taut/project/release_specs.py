"""What of a manifest says how versions are released; `taut.project.manifest` has it all."""

from __future__ import annotations

from typing import Literal

import msgspec


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit that stands by itself; see `taut.absolute`. most: the share of answers, 0 to 1. over_ms: of `latency`, beyond which one is slow."""

    metric: Literal["errors", "latency"]
    most: float
    over_ms: float = 0.0
    act: Literal["page", "hold", "roll_back"] = "page"


class ShadowSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `taut.Shadow`."""

    share: float = 0.1
    every: str = "10m"
    least: int = 1000
    differ: float = 0.05


class StrategySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """every: how long a step lasts at least. least: answers of the canary that it needs. most: see `taut.Canary`. limits: see
    `taut.absolute`. payoff_most: see `taut.outcome`.

    shadow: what comes before a canary or a switch. keep: how long the old side of a switch is kept.
    """

    kind: Literal["direct", "canary", "shadow", "blue-green"] = "direct"
    steps: tuple[float, ...] = ()
    guardrails: tuple[str, ...] = ()
    every: str = "10m"
    least: int = 100
    most: float | None = None
    limits: tuple[LimitSpec, ...] = ()
    payoff_most: float = 1.0
    shadow: ShadowSpec | None = None
    keep: str = "1h"


class FreezeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time in which releases wait; see `taut.Freeze`. endpoints: where; none means everywhere."""

    name: str
    weekly: str | None = None
    since: str | None = None
    until: str | None = None
    endpoints: tuple[str, ...] = ()
    reason: str = ""
