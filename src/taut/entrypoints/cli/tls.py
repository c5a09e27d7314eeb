"""Commands on certificates: a small authority for a try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"create": create}
    add_noun(app, "tls", "Certificates for a try, from an authority of your own.", verbs)


def create(
    context: typer.Context,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that clients use; may come several times.")
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="Also a certificate for this client; may come several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; without it, tls in the home.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long certificates are valid.", min=1, max=825)] = 90,
) -> None:
    """Make an authority and a server's certificate; with an authority that is there already, only the latter.

    For example: taut tls create --host ml.example.org

    Without --host the certificate has the names of the one before it, and the first those of this machine: localhost,
    its addresses on loopback, its name. A platform that runs with these files takes a new certificate over within seconds.
    """
    from taut.entrypoints.home import private_home
    from taut.entrypoints.making import make_certificates

    here = session(context)
    if out is None:
        private_home(here.home)
    folder = (out or here.home / "tls").expanduser().absolute()
    result = make_certificates(folder, hosts=host or [], clients=client or [], days=days)
    here.show(result, _shown)


def _shown(result: dict[str, Any]) -> None:
    from taut.entrypoints import render

    render.line(
        f"authority    {result['ca']}" + (" (new: give it to clients)" if result["new_authority"] else "")
    )
    render.line(
        f"certificate  {result['cert']}   {', '.join(result['hosts'])}, valid until {result['not_after']}"
    )
    render.line(f"private key  {result['key']}")
    for found in result["clients"]:
        render.line(f"client       {found['cert']}, {found['key']}")
    render.line("")
    render.line(f"taut up --tls-cert {result['cert']} --tls-key {result['key']}")
    render.line(f"taut status --url https://{result['hosts'][0]}:8081 --tls-ca {result['ca']} --token TOKEN")
