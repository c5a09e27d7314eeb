"""Commands on training and models: train, run, model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli import supply
from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Version = Annotated[str, typer.Argument(help="model@number.")]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    add_noun(
        app,
        "run",
        "Training runs.",
        {"list": runs, "show": run_show, "compare": compare, "reproduce": reproduce},
    )
    versions: Verbs = {
        "list": models,
        "show": model_show,
        "score": score,
        "approve": approve,
        "reject": reject,
        "verify": verify,
        "sbom": supply.sbom,
        "provenance": supply.provenance,
        "export": export,
        "edge": edge,
        "alias": alias,
        "optimise": optimise,
        "compose": compose,
        "retire": retire,
    }
    add_noun(app, "model", "Model versions.", versions)


def train(
    context: typer.Context,
    model: str,
    seed: Annotated[int | None, typer.Option(help="Instead of the declared one.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="name=value, over the declared ones.")
    ] = None,
) -> None:
    """Train a model on the current snapshots, or compose a graph of approved versions, and judge it by the model gate.

    For example: taut train delay -p depth=8
    """
    from taut.entrypoints import views
    from taut.entrypoints.inputs import parameters

    request = {"model": model, "seed": seed, "params": parameters(param or [])}
    session(context).act("run.start", request, views.trained)


def runs(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    limit: int = 20,
) -> None:
    """List training runs, the newest first."""
    from taut.entrypoints import views

    view = views.listed(
        "runs",
        ("run", "model", "state", "started_at", "seconds", "metrics", "error"),
        empty="nothing was trained yet",
    )
    session(context).act("run.list", {"model": model, "limit": limit}, view)


def run_show(context: typer.Context, run: str) -> None:
    """Show a run: its data, code, parameters, metrics, hardware, and what it left."""
    from taut.entrypoints import views

    session(context).act("run.show", {"run": run}, views.run)


def compare(context: typer.Context, one: str, other: str) -> None:
    """Say what differs between two runs.

    For example: taut run compare RUN RUN
    """
    from taut.entrypoints import views

    session(context).act("run.compare", {"one": one, "other": other}, views.differences)


def reproduce(context: typer.Context, run: str) -> None:
    """Run a training again from its pinned data, code and seed; exit 10 when the result differs."""
    from taut.entrypoints import views

    here = session(context)
    result = here.ask("run.reproduce", {"run": run})
    here.show(result, views.reproduction)
    if not result["same"]:
        raise typer.Exit(10)


def models(
    context: typer.Context, model: Annotated[str | None, typer.Option(help="Only of this model.")] = None
) -> None:
    """List model versions, the newest first."""
    from taut.entrypoints import views

    view = views.listed(
        "versions",
        ("version", "state", "metrics", "approvals", "created_at"),
        empty="no model version is registered yet",
    )
    session(context).act("model.list", {"model": model}, view)


def model_show(context: typer.Context, version: Version) -> None:
    """Show a version: its card, its gate's verdict, its approvals, its signature."""
    from taut.entrypoints import views

    session(context).show_only("model.show", {"version": version}, views.model)


def score(context: typer.Context, version: Version) -> None:
    """Score a version by the ML Test Score: 28 tests of what is evidence here, and what is missing.

    For example: taut model score late@1
    """
    from taut.entrypoints import score_view

    session(context).act("model.score", {"version": version}, score_view.score)


def approve(context: typer.Context, version: Version, reason: Reason = "") -> None:
    """Approve a version.

    For example: taut model approve delay@2 --reason 'checked by hand'
    """
    from taut.entrypoints import views

    session(context).act("model.approve", {"version": version, "reason": reason}, views.decided)


def reject(context: typer.Context, version: Version, reason: Reason = "") -> None:
    """Reject a version for good."""
    from taut.entrypoints import views

    session(context).show_only("model.reject", {"version": version, "reason": reason}, views.decided)


def verify(
    context: typer.Context,
    version: Version,
    bundle: Annotated[
        Path | None, typer.Option("--edge", help="Verify this file of `taut model export --edge` too.")
    ] = None,
) -> None:
    """Check a version's signature and the digests of its artifacts."""
    from taut.entrypoints import views

    here = session(context)
    if bundle is not None:
        here.act("edge.verify", {"version": version, "file": str(bundle.absolute())}, views.fields)
        return
    here.act("model.verify", {"version": version}, views.fields)


def export(
    context: typer.Context,
    version: Version,
    folder: Annotated[
        Path | None, typer.Option("--to", help="A folder that is empty or not there yet.")
    ] = None,
    edge: Annotated[
        Path | None,
        typer.Option("--edge", help="Instead: one file that verifies itself and serves, FILE.pyz."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="For --edge: original, or a kept variant; else the smallest quantised one."),
    ] = None,
    features_in_request: Annotated[
        bool, typer.Option("--features-in-request", help="For --edge: callers send what would be looked up.")
    ] = False,
) -> None:
    """Write a version, its signed manifest and its card to a folder, to be verified anywhere; or as one file for the edge.

    For example: taut model export delay@3 --edge delay.pyz
    """
    from taut.core.errors import InvalidInput
    from taut.entrypoints import edge_view, views

    if (folder is None) == (edge is None):
        raise InvalidInput("give either --to FOLDER or --edge FILE.pyz")
    if edge is not None:
        request = {
            "version": version, "file": str(edge.absolute()), "variant": variant, "features_in_request": features_in_request,
        }  # fmt: skip
        session(context).act("edge.export", request, edge_view.bundle)
    elif folder is not None:
        if variant is not None or features_in_request:
            raise InvalidInput("--variant and --features-in-request are for --edge FILE.pyz")
        session(context).act(
            "model.export", {"version": version, "folder": str(folder.absolute())}, views.fields
        )


def edge(
    context: typer.Context,
    version: Annotated[str | None, typer.Argument(help="Only devices that run it: model@number.")] = None,
    limit: int = 100,
) -> None:
    """List devices at the edge: what they run, when they were last heard of, what they answered, and how it drifts.

    For example: taut model edge delay@3
    """
    from taut.entrypoints import edge_view

    session(context).act("edge.list", {"version": version, "limit": limit}, edge_view.devices)


def optimise(context: typer.Context, version: Version) -> None:
    """Try smaller and faster forms of a version; what gains goes before the model gate as a version of its own.

    For example: taut model optimise delay@3
    """
    from taut.entrypoints import views

    session(context).act("model.optimise", {"version": version}, views.optimised)


def compose(
    context: typer.Context,
    graph: str,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="NODE=MODEL@NUMBER, instead of the live or newest approved version."),
    ] = None,
) -> None:
    """Compose a graph of approved versions and judge it by the model gate, as a version of its own.

    For example: taut model compose late-blend --node trees=late-trees@3
    """
    from taut.entrypoints import views
    from taut.entrypoints.inputs import node_versions

    request = {"graph": graph, "versions": node_versions(node or [])}
    session(context).act("model.compose", request, views.trained)


def retire(context: typer.Context, version: Version, reason: Reason = "") -> None:
    """Take a version out of use for ever; its history stays."""
    from taut.entrypoints import views

    session(context).act("model.retire", {"version": version, "reason": reason}, views.decided)


def alias(
    context: typer.Context,
    version: Version,
    name: Annotated[str, typer.Argument(help="For example champion.")],
) -> None:
    """Let a name stand for a version.

    For example: taut model alias delay@3 champion
    """
    from taut.entrypoints import views

    session(context).act("model.alias", {"version": version, "alias": name}, views.decided)
