"""Commands on further machines: who may join, who did, who may no more."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"invite": invite, "list": machines, "revoke": revoke}
    add_noun(app, "machine", "Further machines: who may join, and which identity each has.", verbs)


def invite(
    context: typer.Context,
    machine: Annotated[str, typer.Argument(help="What it is to be called.")],
    ttl: Annotated[str, typer.Option(help="How long the invitation holds, up to 24h.")] = "1h",
) -> None:
    """Let a machine join, once: it gives what this prints to `taut up --join URL --token INVITATION`.

    For example: taut machine invite m2
    """

    def view(result: dict[str, object]) -> None:
        typer.echo(result["invitation"])
        typer.echo(
            f"good once, for machine {machine}, until {result['expires_at']}: taut up --join URL --token INVITATION",
            err=True,
        )

    session(context).act("machine.invite", {"machine": machine, "ttl": ttl}, view)


def machines(context: typer.Context) -> None:
    """List machines: which identity each has, since when and until when; it is renewed long before."""
    from taut.entrypoints import fleet_view

    session(context).act("machine.list", {}, fleet_view.machines)


def revoke(context: typer.Context, machine: str) -> None:
    """Refuse a machine from now on, its invitations included; a new invitation lets it join again.

    For example: taut machine revoke m2
    """
    from taut.entrypoints import views

    session(context).act("machine.revoke", {"machine": machine}, views.fields)
