"""Commands on incidents."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Which = Annotated[str, typer.Argument(help="An incident, as `taut incident list` names it.")]
Reason = Annotated[str, typer.Option(help="Why; it is recorded for ever.")]
Grade = Annotated[str, typer.Option(help="info, warning or critical.")]


def register(app: typer.Typer) -> None:
    verbs: Verbs = {
        "list": incidents, "show": show, "open": open_, "note": note, "assign": assign, "grade": grade,
        "mitigate": mitigate, "resolve": resolve, "report": report, "rehearse": rehearse,
    }  # fmt: skip
    add_noun(app, "incident", "What hurt, who answers for it, and what was done.", verbs)


def incidents(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are resolved too.")] = False,
) -> None:
    """List incidents that are not resolved, the newest first."""
    from taut.entrypoints.incidents_view import incidents as shown

    session(context).act("incident.list", {"all": everything}, shown)


def show(context: typer.Context, incident: Which) -> None:
    """Show an incident: its alerts, and what happened when."""
    from taut.entrypoints.incidents_view import incident as shown

    session(context).act("incident.show", {"incident": incident}, shown)


def open_(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="What hurts, in a line.")],
    severity: Grade = "warning",
    endpoint: Annotated[str, typer.Option(help="The endpoint that it is about.")] = "",
    principal: Annotated[str, typer.Option(help="The principal that it is about.")] = "",
) -> None:
    """Open an incident that a person saw; alerts about the same endpoint or principal join it.

    For example: taut incident open "answers look wrong since noon" --endpoint delay --severity critical
    """
    from taut.entrypoints.incidents_view import brief as shown

    request = {"title": title, "severity": severity, "endpoint": endpoint, "principal": principal}
    session(context).act("incident.open", request, shown)


def note(
    context: typer.Context, incident: Which, text: Annotated[str, typer.Argument(help="What to remember.")]
) -> None:
    """Write into the timeline of an incident."""
    from taut.entrypoints.incidents_view import brief as shown

    session(context).act("incident.note", {"incident": incident, "text": text}, shown)


def assign(
    context: typer.Context,
    incident: Which,
    owner: Annotated[str, typer.Argument(help="Who answers for it; you, where nobody is named.")] = "",
) -> None:
    """Say who answers for an incident."""
    from taut.entrypoints.incidents_view import brief as shown

    session(context).act("incident.assign", {"incident": incident, "owner": owner}, shown)


def grade(
    context: typer.Context,
    incident: Which,
    severity: Annotated[str, typer.Argument(help="info, warning or critical.")],
    reason: Reason,
) -> None:
    """Say how grave an incident is; a graver alert raises it again."""
    from taut.entrypoints.incidents_view import brief as shown

    session(context).act(
        "incident.grade", {"incident": incident, "severity": severity, "reason": reason}, shown
    )


def mitigate(context: typer.Context, incident: Which, reason: Reason) -> None:
    """Say that an incident hurts no longer, though it is not over."""
    from taut.entrypoints.incidents_view import brief as shown

    session(context).act("incident.mitigate", {"incident": incident, "reason": reason}, shown)


def resolve(context: typer.Context, incident: Which, reason: Reason) -> None:
    """Say that an incident is over, and why."""
    from taut.entrypoints.incidents_view import brief as shown

    session(context).act("incident.resolve", {"incident": incident, "reason": reason}, shown)


def report(context: typer.Context, incident: Which) -> None:
    """Draft a post-mortem in Markdown, from the ledger.

    For example: taut incident report incident_... > post-mortem.md
    """
    from taut.entrypoints.incidents_view import report as shown

    session(context).act("incident.report", {"incident": incident}, shown)


def rehearse(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="An alert, as `taut alerts list` names it.")],
) -> None:
    """Say what each playbook would do about an alert now, and do nothing."""
    from taut.entrypoints.incidents_view import rehearsed as shown

    session(context).act("incident.rehearse", {"alert": alert}, shown)
