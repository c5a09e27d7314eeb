"""Dashboards for Grafana: one a service, one for the platform. Their source of figures is chosen in Grafana (`datasource`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from taut.core.canonical import digest_json
from taut.entrypoints.dashboards.rules import Json, recorded_name
from taut.project.manifest import EndpointSpec

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_PANEL: Final = (8, 7)  # three in a row


class Panel(NamedTuple):
    """A graph. lines: the name of each, as a template of its labels, and what is asked. unit: as Grafana names it."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def service_dashboard(endpoint: EndpointSpec) -> Json:
    """Return everything about one endpoint: traffic, promises, model, workers."""
    name = endpoint.name
    rows = [("Traffic", _traffic(name)), ("Model", _model(name)), ("Workers", _workers(name))]
    if endpoint.slo is not None:
        rows.insert(1, ("Promises", _promises(name)))
    return _dashboard(f"taut: {name}", f"service:{name}", rows)


def platform_dashboard() -> Json:
    """Return what all endpoints share: gateways, their load, control."""
    gateways = (
        Panel("Gateways", "short", (("ready", "sum(taut_gateway_ready)"), ("up", "sum(taut_gateway_up)"), ("wanted", "sum(taut_replicas_wanted)"))),
        Panel("Snapshot that they serve", "short", (("{{gateway}}", "taut_gateway_epoch"),)),
        Panel("Under way", "short", (("{{gateway}}", "taut_in_flight_requests"), ("limit", "min(taut_in_flight_limit)"))),
        Panel("Processors busy", "short", (("{{gateway}}", "rate(taut_gateway_cpu_seconds_total[1m])"),)),
        Panel("Memory", "bytes", (("{{gateway}}", "taut_gateway_resident_bytes"), ("{{gateway}}, models", "taut_models_bytes"))),
        Panel("Refused outside any endpoint", "reqps", (("{{status}} {{code}}", "sum by (status, code) (rate(taut_unrouted_refusals_total[1m]))"),)),
    )  # fmt: skip
    endpoints = (
        Panel("Requests", "reqps", (("{{endpoint}}", "sum by (endpoint) (rate(taut_requests_total[1m]))"),)),
        Panel("Budgets left", "percentunit", (("{{endpoint}} {{objective}}", "taut_slo_budget_remaining"),)),
        Panel(
            "Alerts of budgets", "short", (("{{endpoint}} {{objective}} {{rule}}", "taut_slo_alert == 1"),)
        ),
    )
    control = (
        Panel("Leaves of the ledger", "short", (("leaves", "taut_ledger_leaves"),)),
        Panel("Database answers", "bool", (("records", "taut_records_up"),)),
        Panel("Emergency", "bool", (("emergency", "taut_emergency"),)),
    )
    return _dashboard(
        "taut", "platform", [("Endpoints", endpoints), ("Gateways", gateways), ("Control", control)]
    )


def _traffic(name: str) -> tuple[Panel, ...]:
    own = f'endpoint="{name}"'
    buckets = f"sum by (le) (rate(taut_request_duration_seconds_bucket{{{own}}}[5m]))"
    return (
        Panel("Requests by status", "reqps", (("{{status}} {{code}}", f"sum by (status, code) (rate(taut_requests_total{{{own}}}[1m]))"),)),
        Panel("Requests by version", "reqps", (("{{version}}", f"sum by (version) (rate(taut_requests_total{{{own}}}[1m]))"),)),
        Panel("Time to answer", "s", tuple((f"p{q * 100:g}", f"histogram_quantile({q}, {buckets})") for q in (0.5, 0.95, 0.99))),
        Panel(
            "Time of stages, p95", "s",
            (("{{stage}}", f"histogram_quantile(0.95, sum by (stage, le) (rate(taut_stage_duration_seconds_bucket{{{own}}}[5m])))"),),
        ),
        Panel("Stand-ins", "reqps", (("answers", f"sum(rate(taut_fallbacks_total{{{own}}}[5m]))"),)),
        Panel("Cache", "reqps", (("{{result}}", f"sum by (result) (rate(taut_cache_requests_total{{{own}}}[5m]))"),)),
    )  # fmt: skip


def _promises(name: str) -> tuple[Panel, ...]:
    own = f'endpoint="{name}"'
    return (
        Panel("Budget left", "percentunit", (("{{objective}}", f"taut_slo_budget_remaining{{{own}}}"),), "stat"),
        Panel("Burn rates", "short", (("{{objective}} {{rule}}", f"taut_slo_burn_rate{{{own}}}"),)),
        Panel(
            "Bad events", "percentunit",
            tuple((f"{{{{objective}}}} {window}", f"{recorded_name(window)}{{{own}}}") for window in ("5m", "1h", "6h")),
        ),
        Panel("Alerts", "bool", (("{{objective}} {{rule}}", f"taut_slo_alert{{{own}}}"),)),
        Panel("State", "short", (("{{objective}}: {{state}}", f"taut_slo_state{{{own}}} == 1"),)),
    )  # fmt: skip


def _model(name: str) -> tuple[Panel, ...]:
    own = f'endpoint="{name}"'
    return (
        Panel(
            "Drift, at least",
            "percentunit",
            (("{{column}}", f"max by (column) (taut_model_shift_at_least{{{own}}})"),),
        ),
        Panel(
            "Faulty inputs",
            "percentunit",
            (("{{column}} {{fault}}", f"max by (column, fault) (taut_model_fault_share{{{own}}}) > 0"),),
        ),
        Panel("Right answers", "percentunit", (("{{version}}, by {{by}}", f"taut_model_right{{{own}}}"),)),
        Panel("Confidence", "percentunit", (("{{version}}", f"taut_model_confidence{{{own}}}"),)),
        Panel("Outliers", "percentunit", (("{{version}}", f"taut_model_outliers{{{own}}}"),)),
        Panel("Age of what was learned", "s", (("{{version}}", f"taut_model_stale_seconds{{{own}}}"),)),
    )


def _workers(name: str) -> tuple[Panel, ...]:
    own = f'endpoint=~"(.*[+])?{name}([+].*)?"'  # a line of workers may be several endpoints'
    return (
        Panel(
            "Workers",
            "short",
            (("ready", f"sum(taut_workers{{{own}}})"), ("wanted", f"sum(taut_workers_wanted{{{own}}})")),
        ),
        Panel("Rows that wait", "short", (("{{gateway}}", f"sum by (gateway) (taut_queue_rows{{{own}}})"),)),
        Panel(
            "Turned away from a full line",
            "reqps",
            (("{{gateway}}", f"sum by (gateway) (rate(taut_shed_requests_total{{{own}}}[1m]))"),),
        ),
    )


def _dashboard(title: str, name: str, rows: Iterable[tuple[str, Iterable[Panel]]]) -> Json:
    return {
        "uid": f"taut-{digest_json(name).removeprefix('sha256:')[:24]}",
        "title": title, "tags": ["taut"], "schemaVersion": 39, "editable": True, "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "panels": list(_laid_out(rows)),
    }  # fmt: skip


def _laid_out(rows: Iterable[tuple[str, Iterable[Panel]]]) -> Iterator[Json]:
    """Yield panels with their places: a heading, then three beside one another."""
    width, height = _PANEL
    number = y = 0
    for heading, panels in rows:
        number += 1
        yield {
            "id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }  # fmt: skip
        y += 1
        x = 0
        for panel in panels:
            if x + width > _WIDTH:
                x, y = 0, y + height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": width, "h": height})
            x += width
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> Json:
    targets: list[dict[str, Any]] = [
        {"refId": chr(ord("A") + at), "expr": asked, "legendFormat": name, "datasource": _SOURCE}
        for at, (name, asked) in enumerate(panel.lines)
    ]
    return {
        "id": number, "type": panel.kind, "title": panel.title, "gridPos": place, "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []}, "targets": targets,
    }  # fmt: skip
