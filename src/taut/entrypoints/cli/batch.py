"""Commands of batch serving: `taut batch ENDPOINT --from DATASET --to NAME`, and its verbs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from taut.entrypoints.cli.session import session

Result = Annotated[str, typer.Argument(help="Its name for the newest version, or NAME@NUMBER.")]

_VERB = "run"


class _RunByDefault(TyperGroup):
    """`taut batch late …` is `taut batch run late …`: the first word is a verb only where it is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = [_VERB, *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    noun = typer.Typer(
        name="batch", help="A dataset scored by a model version: `taut batch ENDPOINT --from DATASET --to NAME`.",
        no_args_is_help=True, rich_markup_mode=None, cls=_RunByDefault,
    )  # fmt: skip
    for verb, function in ((_VERB, run), ("list", listing), ("show", show), ("get", get)):
        noun.command(verb)(function)
    app.add_typer(noun)


def run(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="ENDPOINT_OR_MODEL[@VERSION]", help="Without a version, the live one.")
    ],
    source: Annotated[
        str, typer.Option("--from", metavar="DATASET[@SNAPSHOT]", help="Without a snapshot, the current one.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="The result; it gets a new version.")],
    chunk_rows: Annotated[
        int | None, typer.Option(help="Rows that are scored and kept together: what a crash can lose.")
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(help="Share of rows that may be left out, each with its reason.")
    ] = 0.1,
    max_age: Annotated[
        str | None, typer.Option(help="How long the result counts as fresh, such as 24h.")
    ] = None,
) -> None:
    """Score a dataset: each row once, as one version of a result. `run` may be left out.

    For example: taut batch delay --from flights --to scores

    Killed at any moment and given again, it carries on where it was; with nothing new it says so and changes nothing.
    """
    from taut.entrypoints import views

    request = {
        "target": target, "dataset": source, "to": to, "chunk_rows": chunk_rows, "max_rejected": max_rejected,
        "max_age": max_age,
    }  # fmt: skip
    session(context).act("batch.score", request, views.batch_scored)


def listing(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only versions of this result.")] = None,
    limit: int = 20,
) -> None:
    """List results, the newest first."""
    from taut.entrypoints import views

    view = views.listed(
        "results",
        ("result", "version", "snapshot", "rows", "rejected_rows", "fresh", "created_at"),
        empty="nothing was scored yet",
    )
    session(context).act("batch.list", {"name": name, "limit": limit}, view)


def show(
    context: typer.Context,
    result: Result,
    rejects: Annotated[int, typer.Option(help="Also list so many rows that were not scored.")] = 0,
) -> None:
    """Show a result: what was scored by what, how many rows, and why some were not.

    For example: taut batch show scores --rejects 20
    """
    from taut.entrypoints import views

    session(context).act("batch.show", {"result": result, "rejects": rejects}, views.batch_result)


def get(
    context: typer.Context,
    result: Result,
    key: Annotated[
        list[str],
        typer.Option("--key", help="name=value, or the value alone where one column is the key; repeatable."),
    ],
    limit: Annotated[int, typer.Option(help="At most so many rows.", min=1, max=1000)] = 100,
) -> None:
    """Look up what a result says about a key; exit 3 when it says nothing.

    For example: taut batch get scores --key order_id=17
    """
    from taut.entrypoints import views
    from taut.entrypoints.inputs import key_values

    here = session(context)
    found = here.ask("batch.get", {"result": result, "key": key_values(key), "limit": limit})
    here.show(found, views.batch_found)
    if not found["rows"] and not found["rejects"]:
        raise typer.Exit(3)
