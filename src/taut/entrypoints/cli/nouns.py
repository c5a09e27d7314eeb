"""Adding a noun with its verbs to the command line."""

from __future__ import annotations

from collections.abc import Callable

import typer

Verbs = dict[str, Callable[..., None]]


def add_noun(app: typer.Typer, name: str, help_: str, verbs: Verbs) -> None:
    """Add `taut NAME VERB` for each verb; the first line of a function's docstring is its help."""
    noun = typer.Typer(name=name, help=help_, no_args_is_help=True, rich_markup_mode=None)
    for verb, function in verbs.items():
        noun.command(verb)(function)
    app.add_typer(noun)
