"""How what is watched of models looks to people, and to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from taut.entrypoints import render

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from taut.lifecycle.monitoring import Figures

Json = dict[str, Any]
_STATES: Final = {"usual": 0, "moved": 1, "drifted": 2}
_FAULTS: Final = ("null", "not_finite", "unseen")


def show(result: Json) -> None:
    for one in result["endpoints"]:
        if one["why_not"]:
            render.line(f"{one['endpoint']} ({one['version']}) is not watched: {one['why_not']}")
        else:
            _endpoint(one)


def _endpoint(one: Json) -> None:
    quality = one["quality"]
    render.fields(
        {
            "endpoint": f"{one['endpoint']} ({one['version']})",
            "rows": f"{one['window_rows']:,} of the last {one['window_s'] / 3600:g} h, {one['rows']:,} in all",
            "changed": None if one["moved_row"] is None else f"by whatever little, since row {one['moved_row']:,}",
            "outliers": f"{one['outliers']:.2%} of rows",
            "trained on rows up to": None if one["stale_s"] is None else f"{one['stale_s'] / 86_400:.1f} days ago",
            "right": _percent(quality["right"], f"of {quality['labelled']:,} outcomes"),
            "outcomes without an answer": one["unmatched"] or None,
            "right, estimated": _percent(quality["estimated"], "by confidence, without outcomes"),
            "right, before release": _percent(quality["usual"], ""),
            "right, tolerated": _percent(quality["tolerated"], ""),
            "area under the curve": None if quality["auc"] is None else f"{quality['auc']:.3f}",
        }
    )  # fmt: skip
    rows = [_row(column, one["tolerance"]["shift"]) for column in one["columns"]]
    columns = ("column", "from", "state", "shift", "at least", "tolerated", "where", "psi", "faults", "since")
    render.table(columns, rows)


def _row(column: Json, tolerated: float) -> tuple[object, ...]:
    shift = column["shift"] or {}
    named = {"out of range or unseen": "unseen"}
    faults = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in zip(_FAULTS, column["faults"], strict=True) if share)  # fmt: skip
    return (
        column["column"], column["source"], column["state"], _share(shift.get("value")), _share(shift.get("lower")),
        _share(tolerated), shift.get("event"), f"{shift['psi']:.3f}" if shift else None,
        faults + ("!" if [named.get(one, one) for one in column["faulty"]] else ""), _moment(column["since_s"]),
    )  # fmt: skip


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _percent(value: float | None, of: str) -> str | None:
    return None if value is None else f"{value:.1%} {of}".strip()


def _moment(at_s: float | None) -> str | None:
    return None if at_s is None else render.second(datetime.fromtimestamp(at_s, UTC).isoformat())


def model_families(said: Mapping[tuple[str, str], Figures]) -> Iterator[Metric]:
    """Return what is watched of models: by endpoint and version, and of columns by their names."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    own = ["endpoint", "version"]
    gauge = GaugeMetricFamily
    rows = CounterMetricFamily("taut_model_rows", "Rows that a version was seen to answer.", labels=own)
    shift = gauge("taut_model_shift", "How far a column is from training, 0 to 1.", labels=[*own, "column"])
    least = gauge("taut_model_shift_at_least", "How far it is at least.", labels=[*own, "column"])
    state = gauge("taut_model_drift", "0: as in training; 1: changed, by whatever little; 2: beyond what is tolerated.", labels=[*own, "column"])  # fmt: skip
    faults = gauge("taut_model_fault_share", "Share of a column's values that are null, not finite, or unseen in training.", labels=[*own, "column", "fault"])  # fmt: skip
    right = gauge("taut_model_right", "Share of right answers: of known outcomes, estimated by confidence, before release, or tolerated.", labels=[*own, "by"])  # fmt: skip
    confidence = gauge("taut_model_confidence", "Mean confidence of a classifier.", labels=own)
    outliers = gauge("taut_model_outliers", "Share of rows with a value out of range or unseen.", labels=own)
    labelled = gauge("taut_model_outcomes", "Answers whose outcome is known.", labels=own)
    stale = gauge("taut_model_stale_seconds", "How much older than the last request the newest row of training is.", labels=own)  # fmt: skip
    for place, figures in said.items():
        quality = figures.quality
        rows.add_metric(place, figures.rows)
        outliers.add_metric(place, figures.outliers)
        labelled.add_metric(place, quality.labelled)
        if figures.stale_s is not None:
            stale.add_metric(place, figures.stale_s)
        if quality.confidence is not None:
            confidence.add_metric(place, quality.confidence)
        for by, value in (("outcomes", quality.right), ("confidence", quality.estimated), ("before", quality.usual), ("tolerated", quality.tolerated)):  # fmt: skip
            if value is not None:
                right.add_metric([*place, by], value)
        for column in figures.columns:
            labels = [*place, column.column]
            state.add_metric(labels, _STATES[column.state])
            if column.shift is not None:
                shift.add_metric(labels, column.shift.value)
                least.add_metric(labels, column.shift.lower)
            for fault, share in zip(_FAULTS, column.faults, strict=True):
                faults.add_metric([*labels, fault], share)
    yield from (rows, shift, least, state, faults, right, confidence, outliers, labelled, stale)
