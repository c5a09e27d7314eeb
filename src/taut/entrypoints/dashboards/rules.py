"""Recording and alerting rules for Prometheus.

Burn rates alert where taut's own gate does (`taut_slo_alert`); recorded ratios are there for graphs and for rules of one's own. Format:
https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/.
"""

from __future__ import annotations

from typing import Any, Final

from taut.project.manifest import EndpointSpec, Manifest

Json = dict[str, Any]
WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
PLATFORM_ALERTS: Final[tuple[Json, ...]] = (
    {"alert": "TautGatewayDown", "expr": "taut_gateway_up == 0 or taut_gateway_ready == 0", "for": "30s"},
    {
        "alert": "TautErrors", "for": "5m",
        "expr": 'sum by (endpoint) (rate(taut_requests_total{status=~"5.."}[5m]))\n'
        "  / sum by (endpoint) (rate(taut_requests_total[5m])) > 0.01\n",
    },
    {
        "alert": "TautSlow", "for": "10m",
        "expr": "histogram_quantile(0.99, sum by (endpoint, le) (rate(taut_request_duration_seconds_bucket[5m]))) > 0.1\n",
    },
    {"alert": "TautShedding", "expr": "sum by (endpoint) (rate(taut_shed_requests_total[1m])) > 0", "for": "2m"},
    {"alert": "TautFallback", "expr": "sum by (endpoint) (rate(taut_fallbacks_total[5m])) > 0", "for": "5m"},
    {"alert": "TautWorkersMissing", "expr": "taut_workers < taut_workers_wanted", "for": "1m"},
    {"alert": "TautGatewaysApart", "expr": "max(taut_gateway_epoch) - min(taut_gateway_epoch) > 0", "for": "1m"},
    {"alert": "TautEmergency", "expr": "taut_emergency == 1"},
    {
        "alert": "TautCertificate", "for": "5m",
        "expr": "taut_tls_certificate_days_left < 14 or taut_tls_certificate_refused == 1",
    },
    {"alert": "TautTracesLost", "expr": 'sum(rate(taut_trace_spans_total{result!="exported"}[5m])) > 0', "for": "10m"},
)  # fmt: skip
"""What is wrong with the platform, whatever it serves; shown in docs/how-to/watch-the-path.md."""


def platform_groups() -> list[Json]:
    """Return what holds for all endpoints: the platform's alerts, and the share of bad events over each window."""
    return [
        {"name": "taut", "rules": [dict(one) for one in PLATFORM_ALERTS]},
        {"name": "taut_slo", "rules": [_recorded(window) for window in WINDOWS]},
    ]


def recorded_name(window: str) -> str:
    return f"taut:slo_bad:ratio_rate{window}"


def _recorded(window: str) -> Json:
    bad, events = (
        f"sum by (endpoint, objective) (rate({name}[{window}]))"
        for name in ("taut_slo_bad_total", "taut_slo_events_total")
    )
    return {"record": recorded_name(window), "expr": f"{bad} / ({events} > 0)"}


def service_group(endpoint: EndpointSpec) -> Json:
    """Return the alerts of one endpoint: its budgets, where it promises something, and its model."""
    name = endpoint.name
    model = {
        "alert": "TautModelDrifted", "expr": f'max by (endpoint, version, column) (taut_model_drift{{endpoint="{name}"}}) == 2', "for": "30m",
        "labels": {"severity": "warning", "service": name},
        "annotations": {"summary": f"{{{{ $labels.column }}}} of {name} is not as {{{{ $labels.version }}}} learned", "remedy": f"taut monitor {name}"},
    }  # fmt: skip
    return {"name": f"taut_{name}", "rules": [*([] if endpoint.slo is None else _budget(name)), model]}


def _budget(name: str) -> list[Json]:
    burns = {
        "alert": "TautBudgetBurns", "expr": f'taut_slo_alert{{endpoint="{name}"}} == 1', "labels": {"service": name},
        "annotations": {
            "summary": f"the budget of {{{{ $labels.objective }}}} at {name} burns too fast ({{{{ $labels.rule }}}})",
            "remedy": f"taut status {name}",
        },
    }  # fmt: skip
    spent = {
        "alert": "TautBudgetSpent", "expr": f'taut_slo_state{{endpoint="{name}", state="spent"}} == 1', "for": "5m",
        "labels": {"severity": "warning", "service": name},
        "annotations": {"summary": f"the budget of {{{{ $labels.objective }}}} at {name} is spent", "remedy": f"taut slo show {name}"},
    }  # fmt: skip
    return [burns, spent]


def rule_groups(manifest: Manifest) -> list[Json]:
    """Return all groups of a project."""
    return [*platform_groups(), *(service_group(endpoint) for endpoint in manifest.endpoints)]
