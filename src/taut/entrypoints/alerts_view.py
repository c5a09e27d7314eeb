"""How alerts and containments look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def alerts(result: Json) -> None:
    rows = [
        (a["id"], a["severity"], a["kind"], _about(a), render.second(a["since"]), _state(a))
        for a in result["alerts"]
    ]
    render.table(("alert", "severity", "kind", "about", "since", "state"), rows, empty="no open alerts")


def alert(result: Json) -> None:
    render.line(result["summary"] or result["kind"])
    names = ("id", "severity", "kind", "principal", "group", "resource", "since", "seen")
    render.fields(
        {
            **{name: result[name] for name in names if result[name]},
            "state": _state(result),
            "closes": result["closes"] or None,
            **result["evidence"],
        }
    )
    if result.get("containments"):
        containments(result)
    if result.get("deliveries"):
        rows = [
            (n["receiver"], n["change"], n["state"], n["attempts"], n["said"]) for n in result["deliveries"]
        ]
        render.table(("told", "of", "state", "attempts", "last"), rows)


def containments(result: Json) -> None:
    rows = [
        (c["id"], c["principal"], c["action"], _left(c), render.second(c["until"]), c["begun_by"], _over(c))
        for c in result["containments"]
    ]
    columns = ("containment", "principal", "action", "leaves", "until", "by", "lifted")
    render.table(columns, rows, empty="nobody is contained")


def containment(result: Json) -> None:
    render.fields({name: value for name, value in result.items() if value not in ("", [], 0.0, None)})


def _about(one: Json) -> str:
    return str(one["principal"] or one["group"])


def _state(one: Json) -> str:
    if one["state"] == "open":
        return "open"
    return f"{one['state']} by {one['ended_by']}: {one['reason']}"


def _left(one: Json) -> str | None:
    if one["action"] == "throttle":
        return f"{one['per_s']:g} a second"
    return ", ".join(one["allowed"]) or None


def _over(one: Json) -> str | None:
    return None if one["lifted_at"] is None else f"by {one['lifted_by']}: {one['lifted_why']}"
