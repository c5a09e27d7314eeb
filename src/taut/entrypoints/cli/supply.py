"""Commands on the supply chain: what a model version is made of and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.session import Session, session

Version = Annotated[str, typer.Argument(help="model@number.")]
Out = Annotated[Path | None, typer.Option(help="Write it to this file instead.")]


def sbom(context: typer.Context, version: Version, out: Out = None) -> None:
    """Write a version's bill of materials: artifact, code, packages, data, as CycloneDX 1.6 (ML-BOM).

    For example: taut model sbom delay@3 --out delay.cdx.json
    """
    here = session(context)
    _tell(here, here.ask("model.sbom", {"version": version}), out)


def provenance(
    context: typer.Context,
    version: Version,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check it against our keys, the manifest and the ledger.")
    ] = False,
    out: Out = None,
) -> None:
    """Show the signed statement of how a version was made: in-toto and SLSA v1 in a DSSE envelope.

    For example: taut model provenance delay@3 --verify
    """
    here = session(context)
    _tell(here, here.ask("model.provenance", {"version": version, "verify": verify}), out)


def _tell(here: Session, result: dict[str, Any], out: Path | None) -> None:
    """Show a document, or write it to a file and say so."""
    import msgspec

    from taut.entrypoints import views

    if out is None:
        here.finish(result, views.document)
        return
    out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    here.show({"file": str(out.absolute())}, views.fields)
