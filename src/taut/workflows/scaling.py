"""What an autoscaler looks at, made of what gateways count; and its rule, made of what the project declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from taut.core.units import parse_duration
from taut.fleet.scaling import Load, Look, Rule
from taut.project.manifest import AutoscaleSpec
from taut.serving.meters import (
    TIME_NS,
    EndpointReading,
    HistogramReading,
    MeterReading,
    decode_reading,
    quantile,
)
from taut.serving.snapshot import GatewayState

SILENT_S: Final = 5.0
"""A replica that said nothing for so long tells nothing; it says something every second."""
_ENOUGH: Final = 20
_TAIL: Final = 0.95
_PANIC: Final = 10.0  # as in Knative, a burst is looked for in a tenth of the window
_NS_PER_MS: Final = 1e6

Key = tuple[str, int, int]


class _Told(NamedTuple):
    """What one process counted between its last two readings, and until when."""

    reading: MeterReading
    load: Load | None = None
    waits: tuple[HistogramReading, ...] = ()
    answers: tuple[tuple[str, HistogramReading], ...] = ()


class LoadReader:
    """Remembers one reading a process, so that counters become load. One thread owns it.

    Concurrency is what was under way on average, by Little's law the time that answers took together over the time that passed, or what waits now
    where that is more: a model in the gateway's own process is never seen waiting.
    """

    def __init__(self) -> None:
        self._told: dict[Key, _Told] = {}

    def look(
        self,
        states: Iterable[GatewayState],
        *,
        serving: Collection[str],
        objectives_ms: Mapping[str, float],
        now_s: float,
        wall_s: float,
    ) -> Look:
        """Return what the autoscaler looks at. serving: names of those that may serve now. objectives_ms: of latency, by endpoint.
        now_s: by the clock by which gateways were heard."""
        told: dict[str, _Told] = {}
        kept: dict[Key, _Told] = {}
        for state in states:
            if state.gateway not in serving or state.beat is None or now_s - state.heard_s > SILENT_S:
                continue
            reading = decode_reading(state.beat.meters)
            if reading is not None:
                key = (state.gateway, state.pid, reading.started_us)
                told[state.gateway] = kept[key] = _after(self._told.get(key), reading)
        self._told = kept
        found = told.values()
        return Look(
            at_s=now_s,
            wall_s=wall_s,
            ready=len(serving),
            loads=tuple(one.load for one in found if one.load is not None),
            wait_ms=_tail_ms(wait for one in found for wait in one.waits),
            latency=_worst(found, objectives_ms),
        )


def rule_of(spec: AutoscaleSpec) -> Rule:
    """Return the rule that a project declares. Raises InvalidInput for one that cannot be followed."""
    window_s = parse_duration(spec.window).total_seconds()
    return Rule(
        pool=spec.name, minimum=spec.minimum, maximum=spec.maximum, cpu=spec.cpu, concurrency=spec.concurrency,
        wait_ms=None if spec.wait is None else parse_duration(spec.wait).total_seconds() * 1e3, latency=spec.latency,
        replica_hours=spec.replica_hours, stable_s=window_s, panic_s=window_s / _PANIC,
        cooldown_s=parse_duration(spec.cooldown).total_seconds(),
    )  # fmt: skip


def _after(before: _Told | None, reading: MeterReading) -> _Told:
    """Return what a process did since its reading before; what was known where there is no newer one."""
    if before is None:
        return _Told(reading)
    if reading.up_us <= before.reading.up_us:
        return before
    passed_us = reading.up_us - before.reading.up_us
    old = {(one.endpoint, one.version): one for one in before.reading.endpoints}
    answers, waits = [], []
    for one in reading.endpoints:
        former = old.get((one.endpoint, one.version))
        if (total := _grown(former, one, "total")) is not None:
            answers.append((one.endpoint, total))
        if (wait := _grown(former, one, "queue")) is not None:
            waits.append(wait)
    under_way = sum(one.total for _, one in answers) / 1e3 / passed_us
    cpu = (reading.cpu_us - before.reading.cpu_us) / passed_us
    load = Load(concurrency=max(under_way, float(reading.in_flight)), cpu=cpu)
    return _Told(reading, load, tuple(waits), tuple(answers))


def _grown(before: EndpointReading | None, after: EndpointReading, stage: str) -> HistogramReading | None:
    found = after.stages.get(stage)
    return None if found is None else found.since(None if before is None else before.stages.get(stage))


def _worst(told: Iterable[_Told], objectives_ms: Mapping[str, float]) -> float | None:
    """Return the latency of the endpoint that is worst off, as a share of its objective; None where none has one."""
    told = tuple(told)
    shares = [
        found_ms / objective_ms
        for endpoint, objective_ms in objectives_ms.items()
        if (found_ms := _tail_ms(one for each in told for name, one in each.answers if name == endpoint))
        is not None
    ]
    return max(shares, default=None)


def _tail_ms(readings: Iterable[HistogramReading]) -> float | None:
    """Return what 95% of all are below, in milliseconds; None of so few that it means nothing."""
    counts = [sum(column) for column in zip(*(one.counts for one in readings), strict=True)]
    if sum(counts) < _ENOUGH:
        return None
    found = quantile(TIME_NS, counts, _TAIL)
    return None if found is None else found / _NS_PER_MS
