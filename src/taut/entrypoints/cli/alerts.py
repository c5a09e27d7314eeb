"""Commands on alerts, and on who is contained."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Everything = Annotated[bool, typer.Option("--all", help="Those that are over too.")]
Reason = Annotated[str, typer.Option(help="Why; it is recorded for ever.")]


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"list": alerts, "show": show, "dismiss": dismiss}
    add_noun(app, "alerts", "What taut saw and somebody should look at.", verbs)
    held: Verbs = {"begin": begin, "list": contained, "lift": lift}
    add_noun(app, "contain", "Holding principals back for a time; always reversible.", held)


def alerts(context: typer.Context, everything: Everything = False) -> None:
    """List open alerts, the newest first."""
    from taut.entrypoints.alerts_view import alerts as shown

    session(context).act("alerts.list", {"all": everything}, shown)


def show(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="An alert, as `taut alerts list` names it.")],
) -> None:
    """Show an alert: its figures, what would close it, and what followed from it."""
    from taut.entrypoints.alerts_view import alert as shown

    session(context).act("alerts.show", {"alert": alert}, shown)


def dismiss(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="An open alert.")],
    reason: Reason,
) -> None:
    """Say that what an alert is about is right; it is taken for usual from now on.

    For example: taut alerts dismiss finding_... --reason "the new mobile app"
    """
    from taut.entrypoints.alerts_view import alert as shown

    session(context).act("alerts.dismiss", {"alert": alert, "reason": reason}, shown)


def begin(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="Whom.")],
    action: Annotated[str, typer.Argument(help="throttle, step_up, quarantine or revoke.")],
    reason: Reason,
    lasts: Annotated[str, typer.Option("--for", help="Until it ends by itself, 1s to 30d.")] = "1h",
    per_s: Annotated[float, typer.Option(help="Requests a second that a throttle leaves.")] = 0.0,
    allow: Annotated[list[str] | None, typer.Option(help="An endpoint that a quarantine leaves.")] = None,
    alert: Annotated[str, typer.Option(help="Because of which alert.")] = "",
) -> None:
    """Hold a principal back at every gateway and at control.

    For example: taut contain begin app throttle --per-s 5 --for 1h --reason "crowds out the others"
    """
    from taut.entrypoints.alerts_view import containment as shown

    request = {
        "principal": principal, "action": action, "reason": reason, "lasts": lasts, "per_s": per_s,
        "allow": allow or [], "alert": alert,
    }  # fmt: skip
    session(context).act("contain.begin", request, shown)


def contained(context: typer.Context, everything: Everything = False) -> None:
    """List who is held back, how, and until when."""
    from taut.entrypoints.alerts_view import containments as shown

    session(context).act("contain.list", {"all": everything}, shown)


def lift(
    context: typer.Context,
    containment: Annotated[str, typer.Argument(help="A containment, as `taut contain list` names it.")],
    reason: Reason,
) -> None:
    """End a containment now; gateways know within a second."""
    from taut.entrypoints.alerts_view import containment as shown

    session(context).act("contain.lift", {"containment": containment, "reason": reason}, shown)
