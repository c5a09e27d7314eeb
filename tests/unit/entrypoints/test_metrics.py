"""/metrics: what Prometheus reads of the gateways is whole, exact, and gone when a gateway is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from taut.bootstrap.scaling import Outlook
from taut.core.errors import Unavailable
from taut.entrypoints.dashboards import PLATFORM_ALERTS
from taut.entrypoints.metrics import (
    TautCollector,
    certificate_families,
    gateway_families,
    make_registry,
    scaling_families,
)
from taut.fleet.scaling import Decision
from taut.serving.meters import (
    BATCH_ROWS,
    LAYOUT,
    TIME_NS,
    DevicesReading,
    EndpointMeter,
    Histogram,
    LaneReading,
    MeterReading,
    ModelsReading,
    TraceReading,
    TrialReading,
    encode_reading,
)
from taut.serving.snapshot import Beat, GatewayState

SAID = {"process": "control", "not_after": 1_780_358_400.0, "refused": "it is broken", "renewals": 2}
DECISION = Decision(
    pool="gateway",
    n=4,
    before=2,
    mode="panic",
    signal="cpu",
    observed=2.9,
    target=0.7,
    computed=5,
    bound="maximum",
)
OUTLOOK = Outlook(pool="gateway", n=4, ready=2, automatic=True, pinned=False, decision=DECISION)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class FakePlatform:
    """Control with gateways that say what they are given; the clock stands at 100 s."""

    scaling = None

    def __init__(self, *states: GatewayState, ledger: int | None = 7, home: Path = Path("/nowhere")) -> None:
        self.home = home
        self._states = states
        self._ledger = ledger
        self.watches = self
        self.monitoring = None
        self.promised: Any = None

    @property
    def publisher(self) -> FakePlatform:
        return self

    @property
    def clock(self) -> FakePlatform:
        return self

    @property
    def ledger(self) -> FakePlatform:
        return self

    @property
    def policy(self) -> FakePlatform:
        return self

    @property
    def glass(self) -> FakePlatform:
        return self

    def holding(self) -> None:
        """No emergency."""

    def gateways(self) -> Sequence[GatewayState]:
        return self._states

    def monotonic_s(self) -> float:
        return 100.0

    def now(self) -> datetime:
        return datetime(2026, 6, 1, tzinfo=UTC)

    def size(self) -> int:
        if self._ledger is None:
            raise Unavailable("the database is away")
        return self._ledger


def meter(*times_ns: int) -> EndpointMeter:
    made = EndpointMeter()
    for time_ns in times_ns:
        made.answered(9_000, 40_000, time_ns)
    return made


def state(
    made: EndpointMeter, *, gateway: str = "gateway-0", heard_s: float = 99.5, layout: int = LAYOUT, **more: Any
) -> GatewayState:  # fmt: skip
    reading = MeterReading(
        layout=layout, started_us=1_700_000_000_000_000, up_us=5, in_flight=2, slots=1024,
        endpoints=(made.reading("late", "late@1"),), **more,
    )  # fmt: skip
    beat = Beat(gateway=gateway, epoch=3, ready=True, answers=1, refusals=0, meters=encode_reading(reading))
    return GatewayState(gateway=gateway, pid=1, serving=3, beat=beat, heard_s=heard_s)


def scrape(*states: GatewayState, ledger: int | None = 7) -> Series:
    """Read the page as Prometheus does. Fails when a series is there twice, which it refuses."""
    text = generate_latest(make_registry(FakePlatform(*states, ledger=ledger))).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    keys = Counter((sample.name, frozenset(sample.labels.items())) for sample in samples)
    assert not [key for key, count in keys.items() if count > 1]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def pick(series: Series, name: str, **labels: str) -> float:
    (found,) = [value for (one, has), value in series.items() if one == name and set(labels.items()) <= has]
    return found


def test_models_are_counted_by_whether_they_are_in_memory() -> None:
    load = Histogram(TIME_NS)
    load.observe(3 * 10**6)
    models = ModelsReading(
        budget_bytes=100, used_bytes=60, known=5, loaded=2, evictions=4, failures=1, load=load.reading()
    )
    series = scrape(state(meter(), models=models))

    found = {said: pick(series, "taut_models", state=said) for said in ("loaded", "on demand")}
    assert found == {"loaded": 2, "on demand": 3}
    assert (pick(series, "taut_models_bytes"), pick(series, "taut_models_limit_bytes")) == (60, 100)
    assert pick(series, "taut_model_evictions_total") == 4
    assert pick(series, "taut_model_load_failures_total") == 1
    assert pick(series, "taut_model_load_duration_seconds_sum") == 0.003


LATE = {"gateway": "gateway-0", "endpoint": "late", "version": "late@1"}


def test_requests_are_counted_by_endpoint_version_status_and_code() -> None:
    made = meter(10**6, 2 * 10**6)
    made.refusals.add(429, "exhausted")
    made.refusals.add(503, "unavailable")
    made.refusals.add(503, "unavailable")
    made.fallbacks = 1
    made.cache_hits, made.cache_misses = 3, 4
    series = scrape(state(made))

    assert pick(series, "taut_requests_total", **LATE, status="200") == 2
    assert pick(series, "taut_requests_total", **LATE, status="429", code="exhausted") == 1
    assert pick(series, "taut_requests_total", **LATE, status="503", code="unavailable") == 2
    assert pick(series, "taut_fallbacks_total", **LATE) == 1
    assert pick(series, "taut_cache_requests_total", **LATE, result="hit") == 3
    assert pick(series, "taut_in_flight_requests", gateway="gateway-0") == 2
    assert pick(series, "taut_gateway_start_time_seconds", gateway="gateway-0") == 1_700_000_000
    assert pick(series, "taut_gateway_cpu_seconds_total", gateway="gateway-0") == 0
    assert pick(series, "taut_ledger_leaves") == 7


def check_buckets(series: Series, times_ns: list[int]) -> None:
    name = "taut_request_duration_seconds"
    shown = {dict(labels)["le"]: value for (one, labels), value in series.items() if one == f"{name}_bucket"}
    assert len(shown) > 15
    assert {float(le) for le in shown} >= {5e-05, 0.001, 0.02, 0.5, 10.0, float("inf")}
    for le, value in shown.items():
        assert value == sum(time_ns <= float(le) * 1e9 for time_ns in times_ns), le
    assert pick(series, f"{name}_count", **LATE) == shown["+Inf"] == len(times_ns)
    assert pick(series, f"{name}_sum", **LATE) == pytest.approx(sum(times_ns) / 1e9)


EDGES = [edge + by for edge in TIME_NS for by in (-1, 0, 1)] + [10**12]


def test_buckets_are_cumulative_and_exact_at_their_edges_although_some_are_left_out() -> None:
    check_buckets(scrape(state(meter(*EDGES))), EDGES)


def shift(reading: MeterReading) -> MeterReading:
    """A meter that puts every value one bucket too low."""
    (endpoint,) = reading.endpoints
    total = endpoint.stages["total"]
    moved = msgspec.structs.replace(total, counts=(*total.counts[1:], total.counts[0]))
    stages = {**endpoint.stages, "total": moved}
    return msgspec.structs.replace(reading, endpoints=(msgspec.structs.replace(endpoint, stages=stages),))


def lose_sum(reading: MeterReading) -> MeterReading:
    (endpoint,) = reading.endpoints
    total = msgspec.structs.replace(endpoint.stages["total"], total=0)
    stages = {**endpoint.stages, "total": total}
    return msgspec.structs.replace(reading, endpoints=(msgspec.structs.replace(endpoint, stages=stages),))


@pytest.mark.parametrize("plant", [shift, lose_sum])
def test_a_shifted_bucket_or_a_lost_sum_is_noticed(plant: Callable[[MeterReading], MeterReading]) -> None:
    good = state(meter(*EDGES))
    assert good.beat is not None
    wrong = encode_reading(plant(msgspec.json.decode(good.beat.meters, type=MeterReading)))
    planted = msgspec.structs.replace(good, beat=msgspec.structs.replace(good.beat, meters=wrong))

    with pytest.raises(AssertionError):
        check_buckets(scrape(planted), EDGES)


def test_stages_have_buckets_that_suit_them() -> None:
    series = scrape(state(meter(10**6)))

    assert pick(series, "taut_stage_duration_seconds_bucket", **LATE, stage="guard", le="1e-05") == 1
    assert pick(series, "taut_stage_duration_seconds_bucket", **LATE, stage="guard", le="5e-06") == 0
    assert pick(series, "taut_stage_duration_seconds_sum", **LATE, stage="model") == pytest.approx(40e-6)


def test_workers_their_line_and_their_batches_are_shown() -> None:
    sizes = Histogram(BATCH_ROWS)
    for rows in (1, 4, 5):
        sizes.observe(rows)
    lane = LaneReading(
        endpoints="late", version="late@1", workers=1, wanted=2, waiting_rows=9, shed=11, lost=3,
        held_s=1.5, batch_rows=sizes.reading(),
    )  # fmt: skip
    series = scrape(state(meter(1), lanes=(lane,), traces=TraceReading(exported=1, dropped=2, failed=3)))

    found = {
        name: pick(series, name, **LATE)
        for name in ("taut_workers", "taut_workers_wanted", "taut_queue_rows", "taut_shed_requests_total", "taut_workers_lost_total", "taut_workers_held_seconds_total")
    }  # fmt: skip
    assert list(found.values()) == [1, 2, 9, 11, 3, 1.5]
    assert pick(series, "taut_batch_rows_bucket", **LATE, le="4.0") == 2
    assert pick(series, "taut_batch_rows_sum", **LATE) == 10
    assert pick(series, "taut_trace_spans_total", gateway="gateway-0", result="dropped") == 2


def test_where_workers_run_and_what_that_costs_is_shown() -> None:
    trials = (
        TrialReading(device="cpu", base_us=100.0, row_us=400.0, usd_per_million=0.005),
        TrialReading(device="cuda:0", refused="out of memory"),
    )
    devices = DevicesReading(workers={"cpu": 1, "cuda:1": 2}, failures=3, lost="out of memory", trials=trials)
    lane = LaneReading(
        endpoints="late", version="late@1", workers=3, wanted=3, waiting_rows=0, shed=0, lost=0,
        batch_rows=Histogram(BATCH_ROWS).reading(), devices=devices,
    )  # fmt: skip
    series = scrape(state(meter(1), lanes=(lane,)))

    assert pick(series, "taut_workers_on_device", **LATE, device="cuda:1") == 2
    assert pick(series, "taut_workers_displaced", **LATE) == 1
    assert pick(series, "taut_device_failures_total", **LATE) == 3
    assert pick(series, "taut_device_usd_per_million_rows", **LATE, device="cpu") == 0.005


def test_a_gateway_that_is_there_twice_for_a_moment_is_shown_once_by_its_newest_word() -> None:
    series = scrape(state(meter(1, 2, 3), heard_s=99.0), state(meter(1), heard_s=99.9))

    assert pick(series, "taut_requests_total", **LATE) == 1


def test_a_silent_gateway_has_no_figures_and_one_that_is_gone_no_line() -> None:
    series = scrape(state(meter(1)), state(meter(1, 2), gateway="gateway-1", heard_s=90.0))

    assert pick(series, "taut_gateway_up", gateway="gateway-1") == 0
    assert not [key for key in series if key[0] != "taut_gateway_up" and ("gateway", "gateway-1") in key[1]]
    assert not [key for key in scrape() if any(label == "gateway" for label, _ in key[1])]


def test_meters_of_another_layout_are_not_guessed_at() -> None:
    series = scrape(state(meter(1), layout=LAYOUT + 1))

    assert pick(series, "taut_gateway_readable", gateway="gateway-0") == 0
    assert not [key for key in series if key[0] == "taut_requests_total"]


def test_a_database_that_is_away_costs_its_own_figures_only() -> None:
    series = scrape(state(meter(1)), ledger=None)

    assert pick(series, "taut_records_up") == 0
    assert not [key for key in series if key[0] == "taut_ledger_leaves"]
    assert pick(series, "taut_requests_total", **LATE) == 1


def test_every_figure_is_documented_and_the_alert_rules_name_figures_that_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/watch-the-path.md").read_text()
    families = [
        *gateway_families((), now_s=0.0), *(one for one in TautCollector(FakePlatform()).collect()),
        *certificate_families([SAID], now=datetime(2026, 6, 1, tzinfo=UTC)),
        *scaling_families(OUTLOOK),
    ]  # fmt: skip
    names = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    suffixes = ("_bucket", "_sum", "_count")
    known = names | {one.name + suffix for one in families if one.type == "histogram" for suffix in suffixes}
    (rules,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(groups.*?)```", page, re.DOTALL)]

    assert not [name for name in names if f"`{name}`" not in page]
    assert not set(re.findall(r"\btaut_[a-z_]+", page)) - known
    shown = [{**rule, "expr": rule["expr"].strip()} for rule in rules["groups"][0]["rules"]]
    assert shown == [{**rule, "expr": rule["expr"].strip()} for rule in PLATFORM_ALERTS]
    for rule in shown:
        assert set(re.findall(r"taut_[a-z_]+", rule["expr"])) <= known


def test_certificates_have_their_days_and_whether_newer_files_are_refused() -> None:
    families = certificate_families([SAID], now=datetime(2026, 6, 1, tzinfo=UTC))
    told = {sample.name: sample.value for family in families for sample in family.samples}

    assert told == {
        "taut_tls_certificate_not_after_seconds": 1_780_358_400.0, "taut_tls_certificate_days_left": 1.0,
        "taut_tls_certificate_refused": 1.0, "taut_tls_renewals_total": 2.0,
    }  # fmt: skip


def test_how_many_gateways_there_shall_be_and_what_decided_it_is_shown() -> None:
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in scaling_families(OUTLOOK)
        for sample in family.samples
    }

    assert found == {
        ("taut_replicas_wanted", ("pool", "gateway")): 4,
        ("taut_replicas_admitted", ("pool", "gateway")): 2,
        ("taut_replicas_pinned", ("pool", "gateway")): 0,
        ("taut_autoscaler_state", ("bound", "maximum"), ("mode", "panic"), ("pool", "gateway")): 1,
        ("taut_autoscaler_observed", ("pool", "gateway"), ("signal", "cpu")): 2.9,
        ("taut_autoscaler_target", ("pool", "gateway"), ("signal", "cpu")): 0.7,
    }
