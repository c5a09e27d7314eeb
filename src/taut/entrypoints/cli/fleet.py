"""Commands on the fleet: which replicas there are, how many there shall be, and whether each kept to its leave."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"status": status, "scale": scale, "events": events, "revoke": revoke, "verify": verify}
    add_noun(app, "fleet", "The replicas: who is admitted, how many there are, what they did.", verbs)


def status(context: typer.Context) -> None:
    """Show each replica, with its workers under it: its incarnation, how far it has come, and why it is not admitted."""
    from taut.entrypoints.fleet_view import replicas

    session(context).act("fleet.status", {}, replicas)


def scale(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="What to have more or fewer of: gateway.")],
    n: Annotated[int | None, typer.Argument(help="How many there shall be, whatever the load.")] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="In place of a number: let the load decide again, as the project declares."
        ),
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the scale log and the alert.")] = "asked for",
) -> None:
    """Have another number of replicas: said on the scale log, then done.

    For example: taut fleet scale gateway 4 --reason "the sale begins"

    A number holds until --auto hands it back, or `taut up` is started anew.
    """
    from taut.entrypoints import views

    session(context).act("fleet.scale", {"pool": pool, "n": n, "auto": auto, "reason": reason}, views.fields)


def events(
    context: typer.Context,
    after: Annotated[int, typer.Option(help="Begin behind this place on the log.")] = 0,
) -> None:
    """Show the scale log: how many replicas there should be, since when, and why."""
    from taut.entrypoints.fleet_view import scale_log

    session(context).act("fleet.events", {"after": after}, scale_log)


def revoke(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(help="Name, key or SPIFFE id of a replica.")],
) -> None:
    """Revoke a replica for ever, at once: it serves nothing more, nor does another of its name.

    For example: taut fleet revoke gateway-1
    """
    from taut.entrypoints import views

    session(context).act("fleet.revoke", {"identity": identity}, views.fields)


def verify(context: typer.Context) -> None:
    """Hold every recorded answer against the ledger: was it given by an admitted replica, under a policy in force?

    Ends with 10 where one was not.
    """
    from taut.entrypoints.fleet_view import judged

    session(context).act("fleet.verify", {}, judged)
