"""How one service looks to people: a page."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import objectives_view, render

Json = dict[str, Any]


def show(result: Json) -> None:
    live, traffic = result["live"], result["traffic"]
    render.fields(
        {
            "endpoint": f"{result['endpoint']}, model {result['model']}",
            "live": "nothing yet" if live is None else f"{live['version']} since {render.second(live['since'])} by {live['by']}",
            "release": _release(result["release"]),
            "frozen": "; ".join(result["frozen"]) or None,
            "not ready": "; ".join(f"{one['gateway']}: {', '.join(one['reasons'])}" for one in result["not_ready"]) or None,
            "traffic": _traffic(traffic),
            "answers": _answers(traffic),
        }
    )  # fmt: skip
    if result["objectives"]:
        render.line("")
        objectives_view.show(result)
    for one in result["model_state"]:
        render.line("")
        render.fields({"model": one["version"], **_model(one)})
    _listed("alerts", result["alerts"])
    changes = result["changes"]
    if changes:
        render.line("")
        rows = [
            (
                render.second(one["at"]),
                one["version"],
                one["strategy"],
                one["state"],
                one["by"],
                one["reason"] or None,
            )
            for one in changes
        ]
        render.table(("changed", "version", "how", "state", "by", "why"), rows)


def _release(found: Json | None) -> str | None:
    if found is None:
        return None
    step = (
        f", step {found['step'] + 1} of {len(found['steps'])}"
        if found.get("steps") and found["step"] is not None
        else ""
    )
    waits = f"; waits: {found['waits']}" if found.get("waits") else ""
    return f"{found['version']} as {found['strategy']} at {found['weight']:.1%}{step}{waits}"


def _traffic(traffic: Json) -> str | None:
    if not traffic["seconds"]:
        return None
    failed = "" if traffic["failed"] is None else f", {traffic['failed']:.2%} failed"
    return f"{traffic['requests_per_s']:.4g} requests/s over {objectives_view.render_days(traffic['seconds'])}{failed}"


def _answers(traffic: Json) -> str | None:
    if traffic["p50_ms"] is None:
        return None
    stood_in = f", {traffic['stood_in']:.2%} by a stand-in" if traffic["stood_in"] else ""
    return f"p50 {traffic['p50_ms']:.3g} ms, p95 {traffic['p95_ms']:.3g} ms, p99 {traffic['p99_ms']:.3g} ms{stood_in}"


def _model(one: Json) -> Json:
    right = None if one["right"] is None else f"{one['right']:.1%} of {one['outcomes']:,} outcomes"
    return {
        "drifted": ", ".join(one["drifted"]) or "nothing",
        "faulty": ", ".join(one["faulty"]) or None,
        "right": right,
        "right, estimated": None if one["estimated"] is None else f"{one['estimated']:.1%}",
        "learned up to": None if one["stale_s"] is None else f"{one['stale_s'] / 86_400:.1f} days ago",
    }


def _listed(heading: str, found: list[Json] | None) -> None:
    if not found:
        return
    render.line("")
    rows = [(one["id"], one["severity"], render.second(one["since"]), one["summary"]) for one in found]
    render.table((heading, "severity", "since", "what"), rows)
