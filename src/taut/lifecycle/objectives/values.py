"""Objectives as values: what share of which events has to be good, over which time."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project.manifest import SLOSpec

Name = Literal["availability", "latency", "latency_p99", "live", "quality", "drift", "freshness"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)
P95: Final = 0.95
P99: Final = 0.99
"""What `latency_p95_ms` and `latency_p99_ms` say: the share of answers that are in time."""
FRESH_TARGET: Final = 0.99
"""The share of minutes in which the model that answers is fresh."""


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of one endpoint.

    name: `availability`: of requests that were rightly asked, those that were answered; `latency`, `latency_p99`: of answers, those within
    `limit` milliseconds; `live`: of answers, those of the version that was to answer, and of nothing in its place; `quality`: of
    outcomes that people told, those that say that the answer was right; `drift`: of minutes, those in which no column is farther from
    training than is tolerated; `freshness`: of minutes, those in which the newest
    row that the model learned from is at most `limit` seconds old. target: the share that has to be good, 0 < target < 1.
    window_s: over which. freeze: whether releases wait when the budget is spent.
    """

    endpoint: str
    name: Name
    target: float
    limit: float = 0.0
    window_s: float = 28 * 86_400.0
    freeze: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.target < 1.0:
            raise InvalidInput(
                f"the {self.name} of {self.endpoint} is to be {self.target:g}: choose more than 0 and less than 1, since what may "
                "never be missed has no budget"
            )

    @property
    def allowed(self) -> float:
        """Return the share that may be bad."""
        return 1.0 - self.target

    @property
    def measure(self) -> str:
        """Return what is counted for it: with another limit it is something else, with another target it is not."""
        return f"{self.name}:{self.limit:g}" if self.limit else self.name

    @property
    def words(self) -> str:
        """Return it as people say it.

        >>> Objective(endpoint="delay", name="latency", target=0.95, limit=20.0).words
        '95% of answers within 20 ms'
        """
        share = f"{self.target:.6g}"
        share = f"{float(share) * 100:.6g}%"
        match self.name:
            case "availability":
                return f"{share} of requests answered"
            case "latency" | "latency_p99":
                return f"{share} of answers within {self.limit:g} ms"
            case "live":
                return f"{share} of answers by the live version"
            case "quality":
                return f"{share} of known outcomes right"
            case "drift":
                return f"{share} of minutes without drift"
            case "freshness":
                return f"{share} of minutes with a model that learned within {self.limit / 86_400:.3g} days"


def objectives_of(endpoint: str, spec: SLOSpec | None) -> tuple[Objective, ...]:
    """Return what an endpoint promises, in the order of NAMES; nothing where it promises nothing."""
    if spec is None:
        return ()
    fresh_s = 0.0 if spec.freshness is None else parse_duration(spec.freshness).total_seconds()
    declared: dict[Name, tuple[float | None, float]] = {
        "availability": (spec.availability, 0.0),
        "latency": (None if spec.latency_p95_ms is None else P95, spec.latency_p95_ms or 0.0),
        "latency_p99": (None if spec.latency_p99_ms is None else P99, spec.latency_p99_ms or 0.0),
        "live": (spec.live, 0.0),
        "quality": (spec.quality, 0.0),
        "drift": (spec.drift, 0.0),
        "freshness": (FRESH_TARGET if fresh_s else None, fresh_s),
    }
    window_s = parse_duration(spec.window).total_seconds()
    return tuple(
        Objective(endpoint=endpoint, name=name, target=target, limit=limit, window_s=window_s, freeze=spec.freeze)
        for name, (target, limit) in declared.items()
        if target is not None
    )  # fmt: skip
