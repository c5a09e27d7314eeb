"""Commands on what happened and why: ledger, why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"verify": verify, "show": show, "checkpoint": checkpoint, "prove": prove}
    add_noun(app, "ledger", "What happened, and the proof of it.", verbs)
    app.command("why")(why)


def verify(context: typer.Context) -> None:
    """Read the whole ledger again and compare it with what was signed; exit 8 when something differs."""
    from taut.entrypoints import views

    here = session(context)
    result = here.ask("ledger.verify", {})
    here.show(result, views.ledger_report)
    if not result["ok"]:
        raise typer.Exit(8)


def show(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="A kind, or a prefix such as `verdict.`")] = None,
    subject: Annotated[str | None, typer.Option(help="What it is about, such as model:delay@1.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO 8601, UTC where no zone is given.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
) -> None:
    """Show entries, the newest first.

    For example: taut ledger show --kind verdict.
    """
    from taut.entrypoints import views

    request = {"kind": kind, "subject": subject, "actor": actor, "since": since, "limit": limit}
    session(context).act("ledger.show", request, views.leaves)


def checkpoint(context: typer.Context) -> None:
    """Sign what is in the ledger now and put the checkpoint where the copies are."""
    session(context).act("ledger.checkpoint", {}, lambda result: typer.echo(result["note"], nl=False))


def prove(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="An entry's id, or what it is about.")],
    out: Annotated[Path | None, typer.Option(help="Also write the proof to this file.")] = None,
) -> None:
    """Prove that an entry is in the signed ledger.

    For example: taut ledger prove model:delay@1
    """
    from taut.entrypoints import views

    def view(result: dict[str, object]) -> None:
        if out is not None:
            import msgspec

            out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        views.proof(result)

    session(context).act("ledger.prove", {"what": what}, view)


def why(
    context: typer.Context,
    id: Annotated[
        str, typer.Argument(help="A request, release, model@version, run, snapshot, batch, source …")
    ],
    depth: Annotated[int, typer.Option(help="How many steps back.")] = 20,
    openlineage: Annotated[bool, typer.Option("--openlineage", help="As OpenLineage events.")] = False,
    moved: Annotated[bool, typer.Option("--moved", help="Of a request: also what moved its answer.")] = False,
) -> None:
    """Walk from anything back to the rows that it came from.

    For example: taut why delay@1
    """
    from taut.entrypoints import tree_view, views

    here = session(context)
    request = {"id": id, "depth": depth, "openlineage": openlineage or here.json, "moved": moved}
    here.act("why.show", request, tree_view.why if not openlineage else views.document)
