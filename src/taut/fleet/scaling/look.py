"""One look at a pool: what its replicas tell of themselves."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.fleet.scaling.rule import ADDITIVE

_LIES_SHOWN: Final = 3
_MOST: Final = 1e9  # more of nothing can be: sums stay finite


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica tells, each None where it does not: requests under way, processors busy, share of its accelerator."""

    concurrency: float | None = None
    cpu: float | None = None
    gpu: float | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at one moment.

    at_s: by a clock that does not jump. wall_s: since 1970, for the hour of the week. ready: how many serve. loads: of those of them that tell anything;
    the others are silent. wait_ms: below which 95% of the waits of the last moments lie; latency: the same of answers, as a
    share of their endpoint's objective, the worst of all endpoints; None where nothing was asked. waiting: requests that wait for a replica
    because there is none.
    """

    at_s: float
    wall_s: float
    ready: int
    loads: tuple[Load, ...] = ()
    wait_ms: float | None = None
    latency: float | None = None
    waiting: int = 0


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a look once what cannot be is out of it.

    sums: signal -> (sum over those that tell it, how many of those that are ready do not). told: what was wrong, in words.
    """

    at_s: float
    ready: int
    sums: dict[str, tuple[float, int]]
    wait_ms: float | None = None
    latency: float | None = None
    told: tuple[str, ...] = ()

    def saturated(self, signal: str, share: float) -> bool:
        """Tell whether those that tell a signal have, on average, no more to give of it."""
        total, silent = self.sums.get(signal, (0.0, 0))
        return 0 < self.ready - silent <= total / share


def tally(look: Look) -> Tally:
    """Add up a look. What is no number from 0 to a thousand million was not told: a lie must not become a load."""
    lies: list[str] = []

    def honest(name: str, values: list[float]) -> list[float]:
        found = [value for value in values if 0 <= value <= _MOST]
        if len(found) < len(values):
            lies.extend(f"{name} {value:g}" for value in values if not 0 <= value <= _MOST)
        return found

    sums: dict[str, tuple[float, int]] = {}
    for name in ADDITIVE:
        told = honest(name, [value for load in look.loads if (value := getattr(load, name)) is not None])
        if told:
            sums[name] = (sum(told), max(0, look.ready - len(told)))
    wait_ms = honest("wait_ms", [] if look.wait_ms is None else [look.wait_ms])
    latency = honest("latency", [] if look.latency is None else [look.latency])
    silent = max(0, look.ready - len(look.loads))
    said = [f"{silent} of {look.ready} tell nothing"] if silent else []
    said += [f"what cannot be was told: {', '.join(lies[:_LIES_SHOWN])}"] if lies else []
    return Tally(
        at_s=look.at_s,
        ready=look.ready,
        sums=sums,
        wait_ms=next(iter(wait_ms), None),
        latency=next(iter(latency), None),
        told=tuple(said),
    )
