"""Commands on how security stands."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"report": report}
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
