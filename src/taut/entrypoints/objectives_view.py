"""How objectives look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

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
