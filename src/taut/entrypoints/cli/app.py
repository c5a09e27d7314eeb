"""The command line's tree of nouns and verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.models import TyperInfo

from taut.entrypoints.cli import (
    alerts,
    batch,
    data,
    demo,
    drills,
    fleet,
    incidents,
    keys,
    ledger,
    load,
    machines,
    models,
    objectives,
    people,
    policies,
    project,
    releases,
    security,
    signing,
    streams,
    system,
    tls,
    triggers,
)
from taut.entrypoints.cli.session import Session

_HELP = """Carry an AI project from pilot to production and keep it there.

\b
Begin with:
  taut demo            the whole story on real data
  taut init shop       a small working project in ./shop
  taut up              the platform, for a project that is applied

The global options may stand before or after the noun. Exit codes: 0 done, 2 invalid input, 3 not found, 4 denied,
5 conflict, 6 exhausted, 7 unavailable, 8 corrupt, 10 a gate rejected, 11 a gate holds.
"""


def build(noun: str = "") -> typer.Typer:
    """Build the command line.

    noun: the only one that will be asked for, where that is known. Typer looks at every parameter of every command
    that there is, which takes longer than most commands.
    """
    app = typer.Typer(
        name="taut", help=_HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )  # fmt: skip
    app.callback()(_globals)
    for module in (
        project,
        data,
        models,
        triggers,
        releases,
        batch,
        streams,
        ledger,
        people,
        keys,
        fleet,
        machines,
        signing,
        policies,
        alerts,
        incidents,
        drills,
        objectives,
        security,
        system,
        load,
        tls,
        demo,
    ):
        module.register(app)
    groups = [group for group in app.registered_groups if _name_of(group) == noun]
    commands = [command for command in app.registered_commands if command.name == noun]
    if groups or commands:  # else it is a slip, and the whole is needed to say what was meant
        app.registered_groups, app.registered_commands = groups, commands
    return app


def _name_of(group: TyperInfo) -> str:
    return str(group.typer_instance.info.name) if group.typer_instance else ""


def _print_version(asked: bool) -> None:
    if asked:
        from taut import __version__

        typer.echo(f"taut {__version__}")
        raise typer.Exit


def _globals(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(help="Folder of the installation's state.", envvar="TAUT_HOME")
    ] = Path(".taut"),
    url: Annotated[
        str | None, typer.Option(help="Control plane of another installation.", envvar="TAUT_URL")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Token or API key to act with.", envvar="TAUT_TOKEN", show_default=False),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Authority to trust at --url, as PEM.", envvar="TAUT_TLS_CA")
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option(help="Certificate to show at --url, as PEM.", envvar="TAUT_CLIENT_CERT")
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option(help="Its private key, as PEM.", envvar="TAUT_CLIENT_KEY")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of a failure.")] = False,
    break_glass: Annotated[
        str,
        typer.Option(
            metavar="REASON", help="Act as the owner of the files although others have accounts; recorded."
        ),
    ] = "",
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    context.obj = Session(
        home=home, url=url, token=token, json=json, debug=debug, break_glass=break_glass, tls_ca=tls_ca,
        client_cert=client_cert, client_key=client_key,
    )  # fmt: skip
