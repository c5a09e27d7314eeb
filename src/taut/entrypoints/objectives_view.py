"""How objectives look to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taut.entrypoints import render

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from taut.lifecycle.objectives import Standing

Json = dict[str, Any]


def show(result: Json) -> None:
    columns = ("endpoint", "promise", "state", "good", "events", "budget left", "lasts", "1h", "6h", "3d")
    render.table(
        columns,
        [row(one) for one in result["objectives"]],
        empty="no endpoint promises anything: taut.SLO(...)",
    )
    for one in result["objectives"]:
        for burn in one["burns"]:
            if burn["firing"]:
                render.line(
                    f"{one['endpoint']}, {one['objective']}: burns {burn['rate']:.3g} times as fast as it may ({burn['bad']:,} of "
                    f"{burn['events']:,} bad); {'page' if burn['severity'] == 'critical' else 'ticket'} from {burn['limit']:.3g} on"
                )


def exported(result: Json) -> None:
    render.line(result["openslo"].rstrip())


def row(one: Json) -> tuple[object, ...]:
    budget = one["budget"]
    good = None if not budget["events"] else f"{1 - budget['bad'] / budget['events']:.3%}"
    left = None if budget["remaining"] is None else f"{budget['remaining']:.0%}"
    lasts = None if budget["lasts_s"] is None else render_days(budget["lasts_s"])
    return (
        one["endpoint"], one["promise"], one["state"], good, f"{budget['events']:,}", left, lasts,
        *(_rate(burn) for burn in one["burns"]),
    )  # fmt: skip


def render_days(seconds: float) -> str:
    """Return a time as people say it, roughly."""
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def _rate(burn: Json) -> str:
    """The rate at which a window's budget burns; in brackets where so few events say nothing."""
    said = f"{burn['rate']:.3g}x"
    return f"({said})" if burn["few"] else said + ("!" if burn["firing"] else "")


def objective_families(
    said: Sequence[Standing], counted: Mapping[tuple[str, str], tuple[int, int]]
) -> Iterator[Metric]:
    """Return what is promised and how it stands, by endpoint and objective. The counters begin anew with control's process."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    own = ["endpoint", "objective"]
    gauge = GaugeMetricFamily
    events = CounterMetricFamily("taut_slo_events", "Events of an objective.", labels=own)
    bad = CounterMetricFamily("taut_slo_bad", "Those of them that were bad.", labels=own)
    target = gauge("taut_slo_target", "Share of events that is to be good.", labels=own)
    left = gauge(
        "taut_slo_budget_remaining",
        "Share of the budget that is left; below 0 where it is overdrawn.",
        labels=own,
    )
    state = gauge("taut_slo_state", "1 for how an objective stands.", labels=[*own, "state"])
    burn = gauge(
        "taut_slo_burn_rate",
        "How fast the budget burns in the long window of a rule, 1 using it up exactly.",
        labels=[*own, "rule"],
    )
    alert = gauge(
        "taut_slo_alert",
        "Whether a rule fires: both windows burn too fast, and surely.",
        labels=[*own, "rule", "severity"],
    )
    for (endpoint, objective), (wrong, total) in counted.items():
        events.add_metric([endpoint, objective], total)
        bad.add_metric([endpoint, objective], wrong)
    for one in said:
        labels = [one.objective.endpoint, one.objective.name]
        target.add_metric(labels, one.objective.target)
        state.add_metric([*labels, one.state], 1)
        if one.budget.remaining is not None:
            left.add_metric(labels, one.budget.remaining)
        for rule in one.burns:
            burn.add_metric([*labels, rule.rule], rule.rate)
            alert.add_metric([*labels, rule.rule, rule.severity], int(rule.firing))
    yield from (events, bad, target, left, state, burn, alert)
