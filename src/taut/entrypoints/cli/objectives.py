"""Commands on what endpoints promise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"show": show, "export": export}
    add_noun(app, "slo", "What endpoints promise, and what is left of it.", verbs)
    add_noun(app, "dashboards", "Rules for Prometheus, dashboards for Grafana.", {"export": dashboards})


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


def dashboards(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to; files of these names are written anew.")],
) -> None:
    """Write rules for Prometheus and dashboards for Grafana: one file each for the platform and for every endpoint.

    For example: taut dashboards export monitoring/
    """
    from taut.core.errors import Corrupt, InvalidInput
    from taut.entrypoints import render

    here = session(context)
    files: dict[str, str] = here.ask("dashboards.export", {})["files"]
    for name in files:
        if Path(name).name != name or not name.endswith((".yaml", ".json")):
            raise Corrupt(
                f"control sent a file named {name[:80]!r}, which does not belong into {folder}: nothing was written"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written to: {error.strerror}") from error
    here.show({"folder": str(folder), "files": sorted(files)}, render.fields)
