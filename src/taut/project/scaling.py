"""Declaring how a pool's replicas follow the load."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project import words
from taut.project.declare import declare
from taut.project.manifest import AutoscaleSpec
from taut.project.words import worded

POOLS: Final = ("gateway",)
REPLICAS_MAX: Final = 64
LONGEST: Final = timedelta(hours=2)
_CPU: Final = 0.7


class Autoscale:
    """Lets the number of a pool's replicas follow the load, between a minimum and a maximum."""

    @worded("Autoscale")
    def __init__(
        self,
        pool: str,
        *,
        maximum: int,
        minimum: int = 1,
        cpu: float | None = None,
        concurrency: float | None = None,
        wait: str | None = None,
        latency: float | None = None,
        replica_hours: float | None = None,
        window: str = "60s",
        cooldown: str = "5m",
    ) -> None:
        """pool: `gateway`. minimum, maximum: of replicas, on the first machine.

        What is aimed at; the signal that asks for most decides, and where none is named, it is cpu=0.7. cpu: processors that a
        replica keeps busy. concurrency: requests under way in it. wait: for a worker, of 95% of the requests. latency: what 95% of
        the answers take, as a share of their endpoint's objective (`taut.SLO(latency_p95_ms=…)`).
        replica_hours: what may be spent in a day, UTC; the minimum stays. window: over which load is averaged; a tenth of it
        in a burst. cooldown: for how long less must have been enough before there is less.
        """
        what = f"Autoscale {pool!r}"
        if cpu is None and concurrency is None and wait is None and latency is None:
            cpu = _CPU
        spec = AutoscaleSpec(
            name=words.one_of(pool, POOLS, f"{what}: pool"),
            minimum=words.whole(minimum, f"{what}: minimum", low=1, high=REPLICAS_MAX),
            maximum=words.whole(maximum, f"{what}: maximum", low=1, high=REPLICAS_MAX),
            cpu=words.optional_number(cpu, f"{what}: cpu", low=1e-3, high=1e3),
            concurrency=words.optional_number(concurrency, f"{what}: concurrency", low=1e-6, high=1e6),
            wait=words.optional_duration(wait, f"{what}: wait"),
            latency=words.optional_number(latency, f"{what}: latency", low=1e-3, high=1e3),
            replica_hours=words.optional_number(replica_hours, f"{what}: replica_hours", low=1e-3, high=1e6),
            window=words.duration(window, f"{what}: window"),
            cooldown=words.duration(cooldown, f"{what}: cooldown"),
        )
        for said in autoscale_faults(spec):
            raise InvalidInput(f"{what}: {said}")
        self.name, self.spec = spec.name, spec
        self.place = declare("autoscaler", self.name, self)

    def __repr__(self) -> str:
        return f"taut.Autoscale({self.name!r})"


def autoscale_faults(spec: AutoscaleSpec) -> Iterator[str]:
    """Yield what is wrong across the words of a declaration. Pure, so that the plan gate repeats it on what it was sent."""
    if spec.name not in POOLS:
        yield f"there is no pool {spec.name!r}: name {' or '.join(POOLS)}"
    if not 1 <= spec.minimum <= spec.maximum <= REPLICAS_MAX:
        yield f"minimum {spec.minimum} and maximum {spec.maximum}: give 1 <= minimum <= maximum <= {REPLICAS_MAX}"
    if spec.cpu is None and spec.concurrency is None and spec.wait is None and spec.latency is None:
        yield "nothing is aimed at: give cpu, concurrency, wait or latency"
    for word in ("window", "cooldown", "wait"):
        value = getattr(spec, word)
        if value is not None and not parse_duration(value):
            yield f"{word} is {value!r}: give more than nothing"
        elif value is not None and parse_duration(value) > LONGEST:
            yield f"{word} is {value!r}: give at most two hours"
