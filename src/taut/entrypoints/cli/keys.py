"""Commands on the installation's own keys: how old they are, and new ones."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"list": keys, "rotate": rotate}
    add_noun(app, "keys", "The installation's own keys, which sign and encrypt.", verbs)


def keys(context: typer.Context) -> None:
    """List the installation's own keys, how old they are, and what waits to be wrapped anew."""
    from taut.entrypoints.keys_view import own_keys

    session(context).act("keys.list", {}, own_keys)


def rotate(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="tenant, or one of those that `taut keys list` names.")],
) -> None:
    """Make a new version of one of the installation's own keys; old ones open and verify as long as they are needed.

    For example: taut keys rotate tenant
    """
    from taut.entrypoints import views

    session(context).act("keys.rotate", {"key": key}, views.fields)
