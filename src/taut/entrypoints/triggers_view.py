"""How triggers look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def show(result: Json) -> None:
    for one in result["models"]:
        standing(one)
    if not result["models"]:
        render.line("no model has a trigger: write triggers=[taut.on_new_data(...)] at one")


def standing(one: Json) -> None:
    render.fields(
        {
            "model": one["model"],
            "trains anew": " · ".join(trigger(each) for each in one["triggers"]) or "by hand only",
            "because of": "; ".join(one["pending"]) or None,
            "now": one["waits"] or "ready",
            "paused": one["paused"] or None,
            "next by the clock": None if one["next_at"] is None else render.second(one["next_at"]),
            "outcomes in doubt": one["doubted"] or None,
        }
    )
    rows = [
        (f["number"], render.second(f["fired_at"]), "; ".join(f["reasons"]), *_became(f["outcome"]))
        for f in one["firings"]
    ]
    if rows:
        render.table(("run", "begun", "because of", "became", "version"), rows)


def trigger(one: Json) -> str:
    """Return a trigger in words."""
    match one["kind"]:
        case "new_data":
            return f"{one['count']:,} new rows of {one['dataset']}"
        case "cron":
            return f"{one['schedule']} {one['zone']}"
        case "feedback":
            return f"{one['count']:,} outcomes"
        case "all" | "any":
            return f"{one['kind']} of ({', '.join(trigger(each) for each in one['of'])})"
        case kind:
            return str(kind)


def _became(outcome: Json | None) -> tuple[str, str | None]:
    if outcome is None:
        return "under way", None
    if outcome["error"]:
        return f"{outcome['state']}: {outcome['error']}", None
    released = [f"{one['state']} at {one['endpoint']}" for one in outcome.get("releases", ())]
    return ", ".join([str(outcome.get("decision", outcome["state"])), *released]), outcome.get(
        "version"
    ) or None
