"""Commands on data and features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    data: Verbs = {
        "ingest": ingest, "list": listing, "show": show, "diff": diff, "rollback": rollback, "quarantine": quarantine,
        "repair": repair, "replay": replay, "discard": discard, "history": history,
    }  # fmt: skip
    add_noun(app, "data", "Records under contract.", data)
    features: Verbs = {
        "build": build,
        "materialize": materialize,
        "skew": skew,
        "show": feature_show,
        "list": feature_list,
    }
    add_noun(app, "features", "Feature sets, for training and for serving.", features)


def ingest(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The dataset.")],
    source: Annotated[
        str | None, typer.Option("--from", help="A path, glob or URL instead of the declared source.")
    ] = None,
) -> None:
    """Bring new records in, judged by the data gate.

    For example: taut data ingest flights --from 'data/2013-11-*.csv'
    """
    from taut.entrypoints import views

    here = session(context)
    if source is not None and "://" not in source:
        source = str(Path(source).absolute())
    here.act("data.ingest", {"dataset": name, "source": source}, views.ingested)


def listing(context: typer.Context) -> None:
    """List datasets."""
    from taut.entrypoints import views

    view = views.listed(
        "datasets",
        ("dataset", "snapshot", "rows", "batches", "quarantined", "updated_at"),
        empty="no data was ingested yet",
    )
    session(context).act("data.list", {}, view)


def show(
    context: typer.Context,
    name: str,
    version: Annotated[str | None, typer.Option(help="An earlier snapshot's number.")] = None,
) -> None:
    """Show a dataset's current snapshot, or an earlier one."""
    from taut.entrypoints import views

    session(context).act("data.show", {"dataset": name, "snapshot": version}, views.snapshot)


def diff(
    context: typer.Context,
    name: str,
    old: Annotated[str, typer.Argument(help="A snapshot's number.")],
    new: Annotated[str | None, typer.Argument(help="Another; without it, the current one.")] = None,
) -> None:
    """Say what differs between two snapshots.

    For example: taut data diff flights 1 2
    """
    from taut.entrypoints import views

    session(context).act("data.diff", {"dataset": name, "old": old, "new": new}, views.diff)


def rollback(
    context: typer.Context,
    name: str,
    to: Annotated[str, typer.Option(help="The snapshot's number to return to.")],
) -> None:
    """Make an earlier snapshot the current one; nothing is deleted."""
    from taut.entrypoints import views

    session(context).act("data.rollback", {"dataset": name, "to": to}, views.snapshot)


def quarantine(
    context: typer.Context,
    name: str,
    rule: Annotated[str | None, typer.Option(help="Only records that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 20,
) -> None:
    """List records that were set aside, each with the rules that it broke and its raw value."""
    from taut.entrypoints import views

    request = {"dataset": name, "rule": rule, "limit": limit}
    session(context).act("data.quarantine", request, views.quarantine)


def repair(
    context: typer.Context,
    name: str,
    record: Annotated[str, typer.Argument(help="The record's id, from `taut data quarantine`.")],
    values: Annotated[str, typer.Option("--set", help="JSON object of columns and their right values.")],
) -> None:
    """Mend a record that was set aside; `taut data replay` then puts it before the gate again."""
    from taut.entrypoints import views
    from taut.entrypoints.inputs import read_json

    request = {"dataset": name, "record": record, "values": read_json(values)}
    session(context).act("data.repair", request, views.fields)


def replay(
    context: typer.Context,
    name: str,
    record: Annotated[
        list[str] | None, typer.Option(help="Only this record; without it, all repaired ones.")
    ] = None,
) -> None:
    """Put repaired records before the gate again."""
    from taut.entrypoints import views

    session(context).act("data.replay", {"dataset": name, "records": record or None}, views.ingested)


def discard(
    context: typer.Context,
    name: str,
    record: Annotated[list[str], typer.Argument(help="Ids from `taut data quarantine`.")],
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")],
) -> None:
    """Give up records that were set aside: their values are destroyed, the fact stays."""
    request = {"dataset": name, "records": record, "reason": reason}
    session(context).act(
        "data.discard", request, lambda result: typer.echo(f"discarded {result['discarded']}")
    )


def history(context: typer.Context, name: str, limit: int = 20) -> None:
    """List a dataset's snapshots, the newest first."""
    from taut.entrypoints import views

    view = views.listed(
        "snapshots", ("snapshot", "rows", "reason", "batch", "actor", "created_at"), empty="no snapshot yet"
    )
    session(context).act("data.history", {"dataset": name, "limit": limit}, view)


def build(context: typer.Context, name: str) -> None:
    """Compute a feature set from the current snapshots."""
    from taut.entrypoints import views

    session(context).act("features.build", {"features": name}, views.fields)


def materialize(
    context: typer.Context,
    name: str,
    until: Annotated[
        str | None, typer.Option(help="Only what was known at that time, as in 2013-11-01T12:00:00Z.")
    ] = None,
) -> None:
    """Write the newest row of every entity online, for serving."""
    from taut.entrypoints import views

    session(context).act("features.materialize", {"features": name, "until": until}, views.fields)


def skew(
    context: typer.Context,
    name: str,
    sample: Annotated[int, typer.Option(help="How many entities to compare.", min=1, max=1_000_000)] = 1000,
) -> None:
    """Compare what is online with what training would get; exit 8 where they differ."""
    from taut.entrypoints import views

    here = session(context)
    result = here.ask("features.skew", {"features": name, "sample": sample})
    here.show(result, views.fields)
    if not result["ok"]:
        raise typer.Exit(8)


def feature_show(context: typer.Context, name: str) -> None:
    """Show a feature set's newest computation, and what is online."""
    from taut.entrypoints import views

    session(context).act("features.show", {"features": name}, views.fields)


def feature_list(context: typer.Context) -> None:
    """List feature sets that were computed."""
    from taut.entrypoints import views

    view = views.listed(
        "features",
        ("features", "version", "rows", "entities", "created_at"),
        empty="no features were built yet",
    )
    session(context).act("features.list", {}, view)
