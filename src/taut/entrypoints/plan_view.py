"""How plans look to people: what a project file changes, and what was applied."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render, views
from taut.entrypoints.policy_view import rights, text_changes

Json = dict[str, Any]

_FLOWS_SHOWN = 10
_SIGNS = {"add": "+", "change": "~", "remove": "-"}


def plan(result: Json) -> None:
    """What a project file changes, and what the gate says to it."""
    if not result["changes"]:
        render.line("nothing changes: what is declared is what is applied")
    for change in result["changes"]:
        render.line(f"{_SIGNS[change['action']]} {change['kind']} {change['name']}")
        for field in change["fields"]:
            if change["kind"] == "policy file" and field["path"] == "text":
                for line in text_changes(field["before"], field["after"]):
                    render.line(f"    {line}")
                continue
            render.line(f"    {field['path']}: {_short(field['before'])} -> {_short(field['after'])}")
    for name, alerts in (result.get("playbooks") or {}).items():
        render.line(f"playbook {name}: {len(alerts)} alerts of the last 30 days would have begun it")
    for name, said in (result.get("canaries") or {}).items():
        render.line(f"canaries of {name}:")
        for line in said:
            render.line(f"    {line}")
    flows(result["flows"])
    rights(result)
    views.gate(result)


def flows(found: Json) -> None:
    """What becomes otherwise in the threat model; the new one is stored as the plan is applied."""
    if not any(found.values()):
        return
    render.line("the threat model changes:")
    for sign, names in (("+", found["added"]), ("~", found["changed"]), ("-", found["removed"])):
        for name in names[:_FLOWS_SHOWN]:
            render.line(f"    {sign} {name}")
        if len(names) > _FLOWS_SHOWN:
            render.line(f"    {sign} and {len(names) - _FLOWS_SHOWN} more: taut security threat-model")


def applied(result: Json) -> None:
    plan(result)
    if result["plan"]:
        render.line(f"applied as {result['plan']}")


def _short(value: object) -> str:
    said = render.text(value)
    return said if len(said) <= 60 else said[:57] + "..."


def plans(result: Json) -> None:
    rows = [
        (
            p["number"],
            p["plan"],
            render.second(p["applied_at"]),
            p["actor"],
            p["digest"][:15],
            p.get("reverts_to"),
        )
        for p in result["plans"]
    ]
    render.table(
        ("number", "plan", "applied", "by", "manifest", "returns to"), rows, empty="no project is applied"
    )
