"""Commands on how security stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"report": report, "threat-model": threat_model, "review": review, "audit": audit}
    add_noun(app, "security", "How security stands.", verbs)


def report(
    context: typer.Context,
    days: Annotated[int, typer.Option(help="How far back is judged.")] = 7,
) -> None:
    """Report what a person should look at, what is held against whom, what the guard costs, and what is old.

    For example: taut security report --days 30
    """
    from taut.entrypoints import security_view

    session(context).act("security.report", {"days": days}, security_view.report)


def threat_model(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Write the page to this file, as Markdown.")] = None,
) -> None:
    """Show the threat model of the project as it is: where its data goes, what threatens it, what stands against that.

    For example: taut security threat-model --out threats.md
    """
    from taut.entrypoints import security_view

    here = session(context)
    result = here.ask("security.threats", {})
    if out is not None:
        out.write_text(result["page"])
    here.finish(result, security_view.threat_model if out is None else security_view.model_state)


def review(
    context: typer.Context,
    digest: Annotated[str, typer.Argument(help="Of the map, as `taut security threat-model` says it.")],
    reason: Annotated[str, typer.Option(help="What you concluded; it is recorded for ever.")],
) -> None:
    """Record that you looked at the threat model and what you concluded.

    For example: taut security review sha256:... --reason "the open ones are accepted until June"
    """
    from taut.entrypoints import security_view

    session(context).act("security.review", {"digest": digest, "reason": reason}, security_view.model_state)


def audit(
    context: typer.Context,
    version: Annotated[
        str | None, typer.Argument(help="model@number: the packages of its run; else those installed here.")
    ] = None,
) -> None:
    """Look for known vulnerabilities in packages; exit 10 where there are some, 7 where nobody could look.

    For example: taut security audit delay@3
    """
    from taut.entrypoints import security_view

    here = session(context)
    result = here.ask("security.audit", {"version": version})
    here.show(result, security_view.audit)
    if not result["ok"]:
        raise typer.Exit(10)
