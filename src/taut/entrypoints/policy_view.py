"""How rights look to people: policies, explanations, cases, reviews, emergencies."""

from __future__ import annotations

import difflib
from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def shown(result: Json) -> None:
    rows = [(one["id"], one["effect"], f"{one['file']}:{one['line']}") for one in result["policies"]]
    render.table(("policy", "effect", "place"), rows)
    render.fields({"digest": result["digest"], "plan": result["plan"]})


def explained(result: Json) -> None:
    who = result["principal"]
    render.line("allowed" if result["allow"] else "DENIED: " + "; ".join(result["reasons"]))
    for one in result["policies"]:
        render.line(f"  {one['effect']} {one['id']}, {one['file']}:{one['line']}")
        for line in one["text"].strip().splitlines():
            render.line(f"      {line}")
    render.fields(
        {
            "principal": f"{who['id']}, {who['kind']}",
            "roles": who["roles"],
            "attributes": result["attributes"],
            "context": result["context"],
        }
    )


def tested(result: Json) -> None:
    for one in result["cases"]:
        render.line(f"{'FAILED' if one['fault'] else 'ok':6}  {one['name']}")
        if one["fault"]:
            render.line(f"        {one['fault']}")
    count = len(result["cases"])
    render.line(f"{count - result['failed']} of {count} cases come out as expected")


def reviewed(result: Json) -> None:
    rows = [
        (
            one["principal"],
            one["kind"],
            one["roles"],
            len(one["could"]),
            sum(one["did"].values()),
            one["unused"],
        )
        for one in result["principals"]
    ]
    render.table(
        ("principal", "kind", "roles", "rights", "uses", f"not used in {result['days']} days"),
        rows,
        empty="nobody",
    )
    for one in result["emergencies"]:
        render.line(_said(one))


def emergency(result: Json) -> None:
    render.line(_said(result))


def _said(one: Json) -> str:
    until = (
        f"until {render.second(one['until'])} UTC"
        if one["ended_at"] is None
        else f"ended {render.second(one['ended_at'])} UTC by {one['ended_by']}"
    )
    return (
        f"EMERGENCY by {one['begun_by']} since {render.second(one['begun_at'])} UTC, {until}: {one['reason']}"
    )


def text_changes(before: str | None, after: str | None) -> list[str]:
    """Return what differs between two texts, line by line, as `diff -u` says it, without its head."""
    lines = difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), lineterm="", n=1)
    return list(lines)[2:]


def rights(result: Json) -> None:
    """What a plan changes of who may do what."""
    found = result.get("rights") or {}
    if not found.get("touched"):
        return
    render.line(f"rights change with {', '.join(found['touched'])}: it takes the right policy.admin")
    if "asked" not in found:
        return
    render.line(
        f"of {found['asked']} kinds of recorded requests, {found['otherwise']} would be answered otherwise"
    )
    for one in found["changed"]:
        now = "allowed" if one["after"] else f"denied, {', '.join(one['because'])}"
        render.line(f"  {one['principal']} {one['action']} {one['resource']} ({one['times']} times): {now}")
