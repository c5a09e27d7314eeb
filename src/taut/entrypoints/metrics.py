"""What control shows to Prometheus: its gateways' meters by gateway and endpoint, and a little of its own.

The counters are the gateways': they go on when control is restarted, begin anew with a gateway's process, and are gone
with it. Names and units follow Prometheus' conventions: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from taut.core.errors import TautError
from taut.entrypoints.certificates import told
from taut.entrypoints.monitor_view import model_families
from taut.entrypoints.objectives_view import objective_families
from taut.entrypoints.traffic import SILENT_S, newest_states
from taut.serving.meters import (
    BATCH_ROWS,
    TIME_NS,
    DevicesReading,
    HistogramReading,
    MeterReading,
    ModelsReading,
    decode_reading,
)

if TYPE_CHECKING:
    from taut.bootstrap.scaling import Outlook
    from taut.serving.snapshot import GatewayState

_SHOWN_NS: Final = frozenset(mantissa * 10**decade for decade in range(3, 11) for mantissa in (1, 2, 5))
"""Every second bucket is enough for a graph; a cumulative histogram stays exact when bounds are left out."""
_GUARD_NS: Final = (10**3, 10**7)
_REQUEST_NS: Final = (5 * 10**4, 5 * 10**10)
_LOAD_NS: Final = (10**6, 5 * 10**10)
_SERIES: Final = ("gateway", "endpoint", "version")


def make_registry(platform: Any) -> CollectorRegistry:
    """Return what `/metrics` is generated from: gateways, control's own process, its database."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(TautCollector(platform))
    return registry


class TautCollector(Collector):
    """Makes the families anew with each scrape, from what the gateways said last."""

    def __init__(self, platform: Any) -> None:
        self._platform: Final = platform

    def collect(self) -> Iterable[Metric]:
        publisher = self._platform.publisher
        states = newest_states(() if publisher is None else publisher.gateways())
        yield from gateway_families(states, now_s=self._platform.clock.monotonic_s())
        if self._platform.scaling is not None:
            yield from scaling_families(self._platform.scaling.outlook())
        yield from self._control()
        watching = self._platform.watches.monitoring
        if watching is not None:
            yield from model_families(watching.said)
        promised = self._platform.watches.promised
        if promised is not None:
            yield from objective_families(promised.said, promised.counted)
        yield from certificate_families(told(self._platform.home), now=self._platform.clock.now())

    def _control(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("taut_records_up", "Whether control's database answers.")
        leaves = GaugeMetricFamily("taut_ledger_leaves", "Leaves of the ledger that have their place in it.")
        glass = GaugeMetricFamily("taut_emergency", "Whether an emergency holds (taut break-glass), so that the project's policies do not.")  # fmt: skip
        try:
            leaves.add_metric([], self._platform.ledger.size())
            glass.add_metric([], 0 if self._platform.policy.glass.holding() is None else 1)
            up.add_metric([], 1)
        except TautError:
            up.add_metric([], 0)
        yield up
        yield leaves
        yield glass


def certificate_families(said: Sequence[Mapping[str, Any]], *, now: datetime) -> Iterator[Metric]:
    """Return what processes say of their certificates; nothing without TLS."""
    if not said:
        return
    gauge, own = GaugeMetricFamily, ["process"]
    until = gauge("taut_tls_certificate_not_after_seconds", "Until when the certificate that is served is valid, since 1970.", labels=own)  # fmt: skip
    days = gauge("taut_tls_certificate_days_left", "Days until then; negative after it.", labels=own)
    refused = gauge("taut_tls_certificate_refused", "Whether the files on disk are refused, so that older ones are served.", labels=own)  # fmt: skip
    renewals = CounterMetricFamily("taut_tls_renewals", "Changes of the files that were taken over.", labels=own)  # fmt: skip
    for found in said:
        labels = [str(found["process"])]
        until.add_metric(labels, found["not_after"])
        days.add_metric(labels, (found["not_after"] - now.timestamp()) / 86_400)
        refused.add_metric(labels, int(bool(found["refused"])))
        renewals.add_metric(labels, found["renewals"])
    yield from (until, days, refused, renewals)


def scaling_families(outlook: Outlook) -> Iterator[Metric]:
    """Return how many replicas a pool shall have, how many serve, and what decided that."""
    gauge, own = GaugeMetricFamily, [outlook.pool]
    wanted = gauge(
        "taut_replicas_wanted", "Replicas of the first machine that there shall be.", labels=["pool"]
    )
    ready = gauge("taut_replicas_admitted", "Replicas of the first machine that may serve.", labels=["pool"])
    pinned = gauge("taut_replicas_pinned", "Whether a person chose their number.", labels=["pool"])
    wanted.add_metric(own, outlook.n)
    ready.add_metric(own, outlook.ready)
    pinned.add_metric(own, int(outlook.pinned))
    yield from (wanted, ready, pinned)
    decision = outlook.decision
    if decision is None:
        return
    state = gauge("taut_autoscaler_state", "What decided last: the mode, and what stood against the load.", labels=["pool", "mode", "bound"])  # fmt: skip
    observed = gauge("taut_autoscaler_observed", "What the signal that decided last says.", labels=["pool", "signal"])  # fmt: skip
    target = gauge("taut_autoscaler_target", "What is aimed at for it.", labels=["pool", "signal"])
    state.add_metric([*own, decision.mode, decision.bound or "none"], 1)
    if decision.signal:
        observed.add_metric([*own, decision.signal], decision.observed)
        target.add_metric([*own, decision.signal], decision.target)
    yield from (state, observed, target)


def gateway_families(states: Sequence[GatewayState], *, now_s: float) -> list[Metric]:
    """Return all families about gateways. now_s: of the clock by which they were heard."""
    families = _Families()
    for state in states:
        silent = now_s - state.heard_s > SILENT_S
        families.up.add_metric([state.gateway], 0 if silent else 1)
        if silent or state.beat is None:
            continue
        families.ready.add_metric([state.gateway], int(state.beat.ready))
        families.epoch.add_metric([state.gateway], state.serving)
        reading = decode_reading(state.beat.meters)
        families.readable.add_metric([state.gateway], 0 if reading is None else 1)
        if reading is not None:
            families.add(state.gateway, reading)
    return families.all()


class _Families:
    """The families of one scrape."""

    def __init__(self) -> None:
        gauge, counter, histogram = GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily
        own, series = ["gateway"], list(_SERIES)
        self.up = gauge("taut_gateway_up", "Whether the gateway gave a sign of life lately.", labels=own)
        self.ready = gauge("taut_gateway_ready", "Whether it wants traffic.", labels=own)
        self.readable = gauge("taut_gateway_readable", "Whether control knows the layout of its meters.", labels=own)  # fmt: skip
        self.epoch = gauge("taut_gateway_epoch", "Epoch of the snapshot that it serves.", labels=own)
        self.started = gauge("taut_gateway_start_time_seconds", "When its process began, since 1970.", labels=own)  # fmt: skip
        self.cpu = counter("taut_gateway_cpu_seconds", "Processor time of its process.", labels=own)
        self.memory = gauge("taut_gateway_resident_bytes", "Memory of its process.", labels=own)
        self.in_flight = gauge("taut_in_flight_requests", "Requests that wait for something.", labels=own)
        self.slots = gauge("taut_in_flight_limit", "Requests that may wait for something.", labels=own)
        self.outside = counter("taut_unrouted_refusals", "Refusals of what reached no endpoint.", labels=["gateway", "status", "code"])  # fmt: skip
        self.spans = counter("taut_trace_spans", "Spans by what became of them.", labels=["gateway", "result"])  # fmt: skip
        self.requests = counter("taut_requests", "Requests by HTTP status and error code.", labels=[*series, "status", "code"])  # fmt: skip
        self.duration = histogram("taut_request_duration_seconds", "Time from the request to its answer, of those answered.", labels=series)  # fmt: skip
        self.stage = histogram("taut_stage_duration_seconds", "Part of it that a stage took.", labels=[*series, "stage"])  # fmt: skip
        self.nodes = histogram("taut_node_duration_seconds", "Time that a node of a graph took.", labels=[*series, "node"])  # fmt: skip
        self.node_failures = counter("taut_node_failures", "Times that a node of a graph failed.", labels=[*series, "node"])  # fmt: skip
        self.left_out = counter("taut_node_left_out", "Answers of a graph without this node.", labels=[*series, "node"])  # fmt: skip
        self.fallbacks = counter("taut_fallbacks", "Answers of the fallback.", labels=series)
        self.cache = counter("taut_cache_requests", "Answers by what the result cache had.", labels=[*series, "result"])  # fmt: skip
        self.workers = gauge("taut_workers", "Worker processes that are ready.", labels=series)
        self.wanted = gauge("taut_workers_wanted", "Worker processes that should be.", labels=series)
        self.spares = gauge("taut_workers_spare", "Worker processes that wait for one to end.", labels=series)
        self.on_device = gauge("taut_workers_on_device", "Worker processes that are ready, by where they run their model.", labels=[*series, "device"])  # fmt: skip
        self.displaced = gauge("taut_workers_displaced", "Whether some run on the CPU in an accelerator's place.", labels=series)  # fmt: skip
        self.device_failures = counter("taut_device_failures", "Failures of accelerators, at load or while serving.", labels=series)  # fmt: skip
        self.unit_cost = gauge("taut_device_usd_per_million_rows", "What a million rows cost where the model was tried, by what was measured.", labels=[*series, "device"])  # fmt: skip
        self.lost = counter("taut_workers_lost", "Worker processes that died.", labels=series)
        self.held = counter("taut_workers_held_seconds", "Time that worker processes stood still for taking too much processor time.", labels=series)  # fmt: skip
        self.waiting = gauge("taut_queue_rows", "Rows that wait for a worker.", labels=series)
        self.shed = counter("taut_shed_requests", "Requests turned away from a full line.", labels=series)
        self.models = gauge("taut_models", "Models that the gateway serves, by whether they are in memory.", labels=["gateway", "state"])  # fmt: skip
        self.models_bytes = gauge("taut_models_bytes", "Memory that models take.", labels=own)
        self.models_limit = gauge("taut_models_limit_bytes", "Memory that models may take.", labels=own)
        self.evictions = counter("taut_model_evictions", "Models that left memory for others.", labels=own)
        self.failures = counter("taut_model_load_failures", "Loads of models that failed.", labels=own)
        self.loads = histogram("taut_model_load_duration_seconds", "Time that the load of a model took.", labels=own)  # fmt: skip
        self.batch = histogram("taut_batch_rows", "Rows of a batch that a worker got.", labels=series)

    def all(self) -> list[Metric]:
        return list(vars(self).values())

    def add(self, gateway: str, reading: MeterReading) -> None:
        self.started.add_metric([gateway], reading.started_us / 1e6)
        self.cpu.add_metric([gateway], reading.cpu_us / 1e6)
        if reading.resident_bytes:
            self.memory.add_metric([gateway], reading.resident_bytes)
        self.in_flight.add_metric([gateway], reading.in_flight)
        self.slots.add_metric([gateway], reading.slots)
        for refused in reading.outside:
            self.outside.add_metric([gateway, str(refused.status), refused.code], refused.count)
        if reading.traces is not None:
            for result in ("exported", "dropped", "failed"):
                self.spans.add_metric([gateway, result], getattr(reading.traces, result))
        if reading.models is not None:
            self._models(gateway, reading.models)
        self._endpoints(gateway, reading)
        for lane in reading.lanes:
            labels = [gateway, lane.endpoints, lane.version]
            self.workers.add_metric(labels, lane.workers)
            self.wanted.add_metric(labels, lane.wanted)
            self.spares.add_metric(labels, lane.spares)
            self.lost.add_metric(labels, lane.lost)
            self.held.add_metric(labels, lane.held_s)
            self._devices(labels, lane.devices)
            self.waiting.add_metric(labels, lane.waiting_rows)
            self.shed.add_metric(labels, lane.shed)
            rows = [(float(bound), bound) for bound in BATCH_ROWS]
            self.batch.add_metric(labels, _buckets(rows, BATCH_ROWS, lane.batch_rows), lane.batch_rows.total)

    def _devices(self, labels: list[str], devices: DevicesReading) -> None:
        for device, count in devices.workers.items():
            self.on_device.add_metric([*labels, device], count)
        self.displaced.add_metric(labels, int(bool(devices.lost)))
        self.device_failures.add_metric(labels, devices.failures)
        for trial in devices.trials:
            if trial.usd_per_million is not None:
                self.unit_cost.add_metric([*labels, trial.device], trial.usd_per_million)

    def _models(self, gateway: str, models: ModelsReading) -> None:
        self.models.add_metric([gateway, "loaded"], models.loaded)
        self.models.add_metric([gateway, "on demand"], models.known - models.loaded)
        self.models_bytes.add_metric([gateway], models.used_bytes)
        self.models_limit.add_metric([gateway], models.budget_bytes)
        self.evictions.add_metric([gateway], models.evictions)
        self.failures.add_metric([gateway], models.failures)
        self.loads.add_metric([gateway], *_seconds(models.load, _LOAD_NS))

    def _endpoints(self, gateway: str, reading: MeterReading) -> None:
        for found in reading.endpoints:
            labels = [gateway, found.endpoint, found.version]
            total = found.stages.get("total")
            if total is not None:
                self.requests.add_metric([*labels, "200", ""], total.count)
                self.duration.add_metric(labels, *_seconds(total, _REQUEST_NS))
            for refused in found.refusals:
                self.requests.add_metric([*labels, str(refused.status), refused.code], refused.count)
            for stage, times in found.stages.items():
                if stage != "total":
                    span = _GUARD_NS if stage == "guard" else _REQUEST_NS
                    self.stage.add_metric([*labels, stage], *_seconds(times, span))
            for node in found.nodes:
                self.nodes.add_metric([*labels, node.node], *_seconds(node.times, _REQUEST_NS))
                self.node_failures.add_metric([*labels, node.node], node.failed)
                self.left_out.add_metric([*labels, node.node], node.left_out)
            self.fallbacks.add_metric(labels, found.fallbacks)
            if found.cache_hits or found.cache_misses:
                self.cache.add_metric([*labels, "hit"], found.cache_hits)
                self.cache.add_metric([*labels, "miss"], found.cache_misses)


def _seconds(times: HistogramReading, span: tuple[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Return buckets and sum of times, in seconds, for the bounds within `span`."""
    low, high = span
    bounds = [(bound / 1e9, bound) for bound in TIME_NS if bound in _SHOWN_NS and low <= bound <= high]
    return _buckets(bounds, TIME_NS, times), times.total / 1e9


def _buckets(
    shown: Sequence[tuple[float, int]], bounds: Sequence[int], reading: HistogramReading
) -> list[tuple[str, float]]:
    """Return the cumulative buckets of the bounds that are shown. shown: the bound as it is written, and as it is kept."""
    at_most = dict(zip(bounds, reading.cumulative(), strict=False))  # the last count has no bound
    buckets = [(str(written), float(at_most[kept])) for written, kept in shown]
    return [*buckets, ("+Inf", float(reading.count))]
