"""What happened between two readings of the gateways' meters: rates, quantiles, by gateway and in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taut.serving.meters import (
    TIME_NS,
    EndpointReading,
    LaneReading,
    MeterReading,
    decode_reading,
    quantile,
)

if TYPE_CHECKING:
    from taut.serving.snapshot import GatewayState

SILENT_S: Final = 5.0
"""A gateway that gave no sign of life for so long has no figures: old ones would read as a standstill."""
ALL: Final = "all"
_NS_PER_MS: Final = 1e6
_NS_PER_US: Final = 1e3


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway as control heard of it last.

    silent_s: since then. reasons: why it is not ready. endpoints: why single ones are not. meters: None where it is silent, or speaks of them as control does not know.
    """

    gateway: str
    pid: int
    ready: bool
    silent_s: float
    epoch: int
    reasons: tuple[str, ...] = ()
    endpoints: dict[str, tuple[str, ...]] = {}
    meters: MeterReading | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Return what tells its process from one before or after it of the same name."""
        return self.gateway, self.pid, 0 if self.meters is None else self.meters.started_us


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint on one gateway, or on all. Quantiles and means are None where there was nothing to take them of.

    requests_per_s: answered, refused (status 4xx) and failed (5xx). guard_us: the median. batch_rows: the mean.
    cache_hits: the share of answers from the result cache. devices: where its workers run, such as `cuda:0 cpu`; empty inline.
    """

    endpoint: str
    gateway: str
    version: str
    requests_per_s: float
    refused_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    guard_us: float | None
    shed_per_s: float
    fallbacks_per_s: float
    cache_hits: float | None
    queue_rows: int
    batch_rows: float | None
    workers: int
    workers_wanted: int
    devices: str = ""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """gateways: as they were heard. rows: by endpoint, all gateways first. whole: whether every gateway has figures."""

    gateways: tuple[Sample, ...]
    rows: tuple[Row, ...]
    whole: bool


class _Interval(msgspec.Struct):
    """What one endpoint on one gateway, or on several, did. The rates are per second, the rest as counted."""

    version: str = ""
    answered: float = 0.0
    refused: float = 0.0
    failed: float = 0.0
    fallbacks: float = 0.0
    shed: float = 0.0
    hits: int = 0
    misses: int = 0
    batches: int = 0
    batched_rows: int = 0
    queue_rows: int = 0
    workers: int = 0
    wanted: int = 0
    devices: set[str] = msgspec.field(default_factory=set)
    total: list[int] = msgspec.field(default_factory=lambda: [0] * (len(TIME_NS) + 1))
    guard: list[int] = msgspec.field(default_factory=lambda: [0] * (len(TIME_NS) + 1))

    def add(self, other: _Interval) -> None:
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                mine[:] = [left + right for left, right in zip(mine, theirs, strict=True)]
            elif isinstance(mine, set):
                mine |= theirs
            elif isinstance(mine, str):
                setattr(self, name, mine or theirs)
            else:
                setattr(self, name, mine + theirs)

    def row(self, endpoint: str, gateway: str) -> Row:
        return Row(
            endpoint=endpoint,
            gateway=gateway,
            version=self.version,
            requests_per_s=self.answered + self.refused + self.failed,
            refused_per_s=self.refused,
            errors_per_s=self.failed,
            p50_ms=_scaled(quantile(TIME_NS, self.total, 0.5), _NS_PER_MS),
            p99_ms=_scaled(quantile(TIME_NS, self.total, 0.99), _NS_PER_MS),
            guard_us=_scaled(quantile(TIME_NS, self.guard, 0.5), _NS_PER_US),
            shed_per_s=self.shed,
            fallbacks_per_s=self.fallbacks,
            cache_hits=self.hits / (self.hits + self.misses) if self.hits + self.misses else None,
            queue_rows=self.queue_rows,
            batch_rows=self.batched_rows / self.batches if self.batches else None,
            workers=self.workers,
            workers_wanted=self.wanted,
            devices=" ".join(sorted(self.devices, reverse=True)),
        )


class Watcher:
    """Turns samples, taken one after the other, into what happened in between.

    Guarantees: a gateway that was started anew counts from nothing, so that no figure is negative or lost; one that
    gave no newer reading keeps the figures of its last interval.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, int, int], MeterReading] = {}
        self._intervals: dict[tuple[str, int, int], dict[str, _Interval]] = {}
        self._began = False

    def take(self, samples: Sequence[Sample]) -> Traffic:
        """Return what happened since the samples before; the first ones are only what later ones are measured from."""
        read = {sample.key: sample.meters for sample in samples if sample.meters is not None}
        for key, after in read.items():
            before = self._last.get(key)
            if before is None and self._began:
                self._intervals[key] = _intervals(None, after, after.up_us / 1e6)
            elif before is not None and after.up_us > before.up_us:
                self._intervals[key] = _intervals(before, after, (after.up_us - before.up_us) / 1e6)
        self._began = True
        self._last = read
        self._intervals = {key: found for key, found in self._intervals.items() if key in read}
        return Traffic(
            gateways=tuple(samples),
            rows=tuple(_rows({key[0]: found for key, found in self._intervals.items()})),
            whole=all(sample.key in self._intervals for sample in samples if sample.meters is not None),
        )


def newest_states(states: Sequence[GatewayState]) -> list[GatewayState]:
    """Return one state a gateway, its newest: one that reconnects may be there twice for a moment."""
    newest: dict[str, GatewayState] = {}
    for state in sorted(states, key=lambda state: state.heard_s):
        newest[state.gateway] = state
    return [newest[name] for name in sorted(newest)]


def sample_of(state: GatewayState, *, now_s: float) -> Sample:
    """Return what control knows of a gateway. now_s: of the clock by which it was heard."""
    silent_s, beat = now_s - state.heard_s, state.beat
    return Sample(
        gateway=state.gateway,
        pid=state.pid,
        ready=beat is not None and beat.ready,
        silent_s=round(silent_s, 3),
        epoch=state.serving,
        reasons=() if beat is None else beat.reasons,
        endpoints={} if beat is None else beat.endpoints,
        meters=None if beat is None or silent_s > SILENT_S else decode_reading(beat.meters),
    )


def samples_of(document: dict[str, Any]) -> tuple[Sample, ...]:
    """Read the answer of `status.traffic`."""
    return msgspec.convert(document["gateways"], tuple[Sample, ...])


def _rows(gateways: dict[str, dict[str, _Interval]]) -> Iterable[Row]:
    for endpoint in sorted({name for found in gateways.values() for name in found}):
        whole = _Interval()
        single = []
        for gateway, found in sorted(gateways.items()):
            if endpoint in found:
                whole.add(found[endpoint])
                single.append(found[endpoint].row(endpoint, gateway))
        yield whole.row(endpoint, ALL)
        if len(gateways) > 1:
            yield from single


def _intervals(before: MeterReading | None, after: MeterReading, seconds: float) -> dict[str, _Interval]:
    """Return what each endpoint did on one gateway within so many seconds."""
    earlier = {} if before is None else {(one.endpoint, one.version): one for one in before.endpoints}
    lanes = {} if before is None else {(one.endpoints, one.version): one for one in before.lanes}
    found: dict[str, _Interval] = {}
    for reading in after.endpoints:
        interval = found.setdefault(reading.endpoint, _Interval())
        interval.version = reading.version  # the last of an endpoint is the one that is live
        _add_requests(interval, earlier.get((reading.endpoint, reading.version)), reading, seconds)
    for lane in after.lanes:
        for endpoint in lane.endpoints.split("+"):
            if endpoint in found:
                _add_lane(found[endpoint], lanes.get((lane.endpoints, lane.version)), lane, seconds)
    return found


def _add_requests(
    interval: _Interval, before: EndpointReading | None, after: EndpointReading, seconds: float
) -> None:
    old_stages = {} if before is None else before.stages
    for stage, into in (("total", interval.total), ("guard", interval.guard)):
        if stage in after.stages:
            counts = after.stages[stage].since(old_stages.get(stage)).counts
            into[:] = [left + right for left, right in zip(into, counts, strict=True)]
            if stage == "total":
                interval.answered += sum(counts) / seconds
    old = {} if before is None else {(one.status, one.code): one.count for one in before.refusals}
    for refused in after.refusals:
        rate = _grown(old.get((refused.status, refused.code), 0), refused.count) / seconds
        if refused.status >= 500:
            interval.failed += rate
        else:
            interval.refused += rate
    interval.fallbacks += _grown(0 if before is None else before.fallbacks, after.fallbacks) / seconds
    interval.hits += _grown(0 if before is None else before.cache_hits, after.cache_hits)
    interval.misses += _grown(0 if before is None else before.cache_misses, after.cache_misses)


def _add_lane(interval: _Interval, before: LaneReading | None, after: LaneReading, seconds: float) -> None:
    batches = after.batch_rows.since(None if before is None else before.batch_rows)
    interval.batches += batches.count
    interval.batched_rows += batches.total
    interval.shed += _grown(0 if before is None else before.shed, after.shed) / seconds
    interval.queue_rows += after.waiting_rows
    interval.workers += after.workers
    interval.wanted += after.wanted
    interval.devices |= set(after.devices.workers)


def _grown(before: int, after: int) -> int:
    return after if after < before else after - before


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
