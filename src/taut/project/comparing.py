"""What a project says of how its versions are compared; a part of the manifest."""

from __future__ import annotations

from typing import Literal

import msgspec


class ExperimentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what several versions of an endpoint are compared; see `taut.AB` and `taut.Bandit`."""

    kind: Literal["ab", "bandit"]
    metric: Literal["right", "reward", "error"]
    low: float = 0.0
    high: float = 1.0
    guardrails: tuple[str, ...] = ()
    least: int = 100
    control: float | None = None
    outcomes: int = 10_000
    base: float = 0.1
    winner: bool = False
    every: str | None = None
    floor: float = 0.05
    memory: str | None = None
    mature: str | None = None
    again: str | None = None
