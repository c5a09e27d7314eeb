"""How incidents look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def incidents(result: Json) -> None:
    rows = [
        (one["id"], one["severity"], one["status"], one["title"], one["owner"] or None, render.second(one["opened_at"]))
        for one in result["incidents"]
    ]  # fmt: skip
    columns = ("incident", "severity", "status", "what", "owner", "since")
    render.table(columns, rows, empty="no incidents")


def brief(result: Json) -> None:
    render.line(result["title"])
    names = (
        "id",
        "severity",
        "status",
        "owner",
        "resource",
        "principal",
        "opened_at",
        "opened_by",
        "ended_by",
        "reason",
    )
    render.fields({name: result[name] for name in names if result.get(name)})


def incident(result: Json) -> None:
    brief(result)
    if result["times"] > 1:
        render.line(f"it came {result['times']} times")
    rows = [
        (a["alert"], a["severity"], a["kind"], a["principal"] or a["resource"], "over" if a["over"] else "open")
        for a in result["alerts"]
    ]  # fmt: skip
    render.table(("alert", "severity", "kind", "about", "state"), rows, empty="no alert belongs to it")
    moments = [(render.second(m["at"]), m["who"], m["said"]) for m in result["timeline"]]
    render.table(("when", "who", "what"), moments)


def report(result: Json) -> None:
    render.page(result["markdown"])


def rehearsed(result: Json) -> None:
    for one in result["playbooks"]:
        render.line(f"{one['playbook']}: {'it is for this alert' if one['begins'] else 'not for this alert'}")
        for step in one["steps"] if one["begins"] else ():
            render.line(f"    {step}")
    if not result["playbooks"]:
        render.line("the project declares no playbooks")


def drills(result: Json) -> None:
    rows = [
        (one["name"], one["endpoint"], _fault(one), one["verdict"], "; ".join(one["reasons"]))
        for one in result["drills"]
    ]
    columns = ("drill", "endpoint", "fault", "ended last", "because")
    render.table(columns, rows, empty="the project declares no drills")


def drilled(result: Json) -> None:
    if result.get("error"):
        render.line(f"the drill did not come about: {result['error']}")
        return
    for check in result.get("checks", ()):
        sign = "came" if check["outcome"] == "passed" else "MISSING"
        after = (
            "" if check["limit"] is None or check["observed"] is None else f" after {check['observed']:.1f} s"
        )
        limit = "" if check["limit"] is None else f" (within {check['limit']:.0f} s)"
        render.line(f"{check['name']}: {sign}{after}{limit}: {check['message']}")
    if result.get("broken"):
        render.line(f"the link that broke: {result['broken']}")


def drill_story(result: Json) -> None:
    if result["result"] is None:
        render.fields({name: result[name] for name in ("story", "state", "error") if result[name]})
    else:
        drilled(result["result"])


def _fault(one: Json) -> str:
    return f"{one['failing']:.0%} fail" if one["failing"] else f"{one['slow_ms']:g} ms late"
