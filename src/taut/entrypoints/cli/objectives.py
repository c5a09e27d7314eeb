"""Commands on what endpoints promise."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"show": show, "export": export}
    add_noun(app, "slo", "What endpoints promise, and what is left of it.", verbs)


def show(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Of which; all without one.")] = "",
) -> None:
    """Show how objectives stand: good events, the budget that is left, and how fast it burns.

    For example: taut slo show delay

    Burn rates are of the last hour, 6 hours and 3 days, 1x being what uses the budget up exactly by the window's end; in
    brackets where there were too few events for silence to say anything.
    """
    from taut.entrypoints import objectives_view

    session(context).act("slo.show", {"endpoint": endpoint}, objectives_view.show)


def export(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Of which; all without one.")] = "",
) -> None:
    """Write what endpoints promise as OpenSLO v1, which `taut.openslo("FILE")` reads.

    For example: taut slo export delay > slos.yaml
    """
    from taut.entrypoints import objectives_view

    session(context).act("slo.export", {"endpoint": endpoint}, objectives_view.exported)
