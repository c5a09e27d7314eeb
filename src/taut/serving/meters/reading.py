"""What a gateway tells of its meters, as it goes to control with every sign of life."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from taut.serving.meters.histogram import Histogram, HistogramReading

LAYOUT: Final = 1
"""Goes up whenever a bound or the meaning of a number changes: control shows no reading of another layout."""


class Refusals(msgspec.Struct, frozen=True):
    """How many requests were refused with this HTTP status and error code."""

    status: int
    code: str
    count: int


class NodeReading(msgspec.Struct, frozen=True):
    """One node of a graph: how long it took each time that it was asked, and how often it failed or was left out.

    times: in nanoseconds, failures included. left_out: answers that were given without it.
    """

    node: str
    times: HistogramReading
    failed: int
    left_out: int


class EndpointReading(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint while one version was live on it.

    stages: `guard`, `features`, `queue`, `model` and `total` of answered requests, in nanoseconds; those that an
    endpoint does not have are absent. Its answered requests are the count of `total`. fallbacks: of those answered, how
    many by the fallback. cache_hits, cache_misses: of those answered; both 0 where there is no cache. nodes: of a graph.
    """

    endpoint: str
    version: str
    stages: dict[str, HistogramReading]
    refusals: tuple[Refusals, ...] = ()
    fallbacks: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    nodes: tuple[NodeReading, ...] = ()


class TrialReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a model on one device: `base_us + row_us * n` for a batch, and what a million rows cost.

    refused: why it does not serve there.
    """

    device: str
    base_us: float | None = None
    row_us: float | None = None
    usd_per_million: float | None = None
    refused: str = ""


class DevicesReading(msgspec.Struct, frozen=True, kw_only=True):
    """Where the workers of a model run.

    workers: device -> those that are ready there. failures: of accelerators. lost: why some run on the CPU in an
    accelerator's place. trials: every device that was tried by the worker that tried the most.
    """

    workers: dict[str, int] = {}
    failures: int = 0
    lost: str = ""
    trials: tuple[TrialReading, ...] = ()


class LaneReading(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of one model and the line before them.

    endpoints: that it works for, joined by `+`; as a rule one. workers: that are ready, of those `wanted`. spares: that
    are ready beside them.
    shed, lost: requests turned away from the full line, and workers that died. held_s: for how long workers stood still
    for taking more than their share of the processors.
    """

    endpoints: str
    version: str
    workers: int
    wanted: int
    waiting_rows: int
    shed: int
    lost: int
    batch_rows: HistogramReading
    spares: int = 0
    held_s: float = 0.0
    devices: DevicesReading = DevicesReading()


class TraceReading(msgspec.Struct, frozen=True, kw_only=True):
    """Traces of requests: delivered to the collector, dropped from a full buffer, given up after tries."""

    exported: int
    dropped: int
    failed: int


class ModelsReading(msgspec.Struct, frozen=True, kw_only=True):
    """Models that one gateway may have in memory.

    used_bytes: of the budget, what is being loaded included. known: that it serves, `loaded` of them now. evictions: that
    left memory for others, or since the budget shrank. failures: loads that failed. load: how long loads took, in
    nanoseconds; their number is its count.
    """

    budget_bytes: int
    used_bytes: int
    known: int
    loaded: int
    evictions: int
    failures: int
    load: HistogramReading


class MeterReading(msgspec.Struct, frozen=True, kw_only=True):
    """All meters of one gateway process since its start; a new process begins at nothing.

    started_us: wall clock. up_us: since then by a clock that cannot jump, for rates between two readings of one process.
    in_flight: requests that wait for something now, of `slots`. outside: refusals of what reached no endpoint.
    cpu_us, resident_bytes: of the gateway's process alone, without its workers; 0 where nobody looked.
    """

    layout: int
    started_us: int
    up_us: int
    in_flight: int
    slots: int
    endpoints: tuple[EndpointReading, ...] = ()
    lanes: tuple[LaneReading, ...] = ()
    outside: tuple[Refusals, ...] = ()
    traces: TraceReading | None = None
    models: ModelsReading | None = None
    cpu_us: int = 0
    resident_bytes: int = 0


_DECODER: Final = msgspec.json.Decoder(MeterReading)


class _Layout(msgspec.Struct, frozen=True):
    layout: int


def encode_reading(reading: MeterReading) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(reading))


def decode_reading(data: msgspec.Raw) -> MeterReading | None:
    """Return a reading; None for one of another layout, as a gateway of another version sends, or for none."""
    try:
        if msgspec.json.decode(data, type=_Layout).layout != LAYOUT:
            return None
        reading: MeterReading = _DECODER.decode(data)
    except msgspec.MsgspecError:
        return None
    return reading


class Rota(Protocol):
    """What is read of where a lane's workers run."""

    def reading(self) -> DevicesReading: ...


class Lane(Protocol):
    """What is read of a lane of workers."""

    @property
    def name(self) -> str: ...

    @property
    def rota(self) -> Rota: ...

    @property
    def shed(self) -> int: ...

    @property
    def lost(self) -> int: ...

    @property
    def sizes(self) -> Histogram: ...

    @property
    def alive(self) -> int: ...

    @property
    def wanted(self) -> int: ...

    @property
    def spares(self) -> int: ...

    @property
    def held_s(self) -> float: ...

    @property
    def waiting_rows(self) -> int: ...


def read_lanes(lanes: Iterable[tuple[str, Lane]]) -> tuple[LaneReading, ...]:
    """Return a reading a lane. lanes: by each endpoint that it works for; one may work for several."""
    endpoints: dict[int, list[str]] = {}
    found: dict[int, Lane] = {}
    for endpoint, lane in lanes:
        found[id(lane)] = lane
        endpoints.setdefault(id(lane), []).append(endpoint)
    return tuple(
        LaneReading(
            endpoints="+".join(dict.fromkeys(endpoints[key])), version=lane.name, workers=lane.alive,
            wanted=lane.wanted, waiting_rows=lane.waiting_rows, shed=lane.shed, lost=lane.lost,
            batch_rows=lane.sizes.reading(), spares=lane.spares, held_s=lane.held_s, devices=lane.rota.reading(),
        )
        for key, lane in found.items()
    )  # fmt: skip
