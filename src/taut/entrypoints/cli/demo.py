"""The demo's command."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    exit_: Annotated[
        bool, typer.Option("--exit", help="End after the last step instead of serving on.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Of the data plane; 0 takes a free one.", min=0, max=65534)
    ] = 8080,
    folder: Annotated[Path, typer.Option(help="Where the demo's project and state are made anew.")] = Path(
        ".taut-demo"
    ),
) -> None:
    """Show the whole story on real data: New York flights of 2013.

    Each step prints its claim with its figures; one that does not hold fails the demo.
    """
    from taut.entrypoints.demo.show import show

    here = session(context)
    signal.signal(signal.SIGTERM, _interrupt)  # else the platform would outlive a demo that is told to end
    ok = show(folder.expanduser().absolute(), port=port, stay=not exit_, as_json=here.json)
    if not ok:
        raise typer.Exit(1)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
