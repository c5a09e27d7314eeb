"""Commands on triggers: when models are trained anew by themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Model = Annotated[str, typer.Argument(help="A model of the project.")]
Reason = Annotated[str, typer.Option(help="Why; it is recorded for ever.")]


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"list": triggers, "fire": fire, "pause": pause, "resume": resume}
    add_noun(app, "trigger", "When models are trained anew by themselves.", verbs)


def triggers(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Of which; all without one.")] = "",
    limit: Annotated[int, typer.Option(help="How many of its newest runs.")] = 5,
) -> None:
    """Show what triggers wait for, and the runs that they began.

    For example: taut trigger list delay
    """
    from taut.entrypoints.triggers_view import show

    session(context).act("trigger.list", {"model": model, "limit": limit}, show)


def fire(context: typer.Context, model: Model, reason: Reason) -> None:
    """Begin a run now, as a trigger would: what is new is screened, the version judged, and released where the gates admit it.

    For example: taut trigger fire delay --reason "the storm of last week"
    """
    from taut.entrypoints import render

    session(context).act("trigger.fire", {"model": model, "reason": reason}, render.fields)


def pause(context: typer.Context, model: Model, reason: Reason) -> None:
    """Let no trigger of a model begin a run until it is resumed; one that is under way goes on."""
    from taut.entrypoints.triggers_view import standing

    session(context).act("trigger.pause", {"model": model, "reason": reason}, standing)


def resume(context: typer.Context, model: Model, reason: Reason) -> None:
    """Let triggers of a model begin runs again; times that passed meanwhile are left out."""
    from taut.entrypoints.triggers_view import standing

    session(context).act("trigger.resume", {"model": model, "reason": reason}, standing)
