"""The runner of a bundle: `serve`, `predict`, `verify`. Nothing but the verifier is imported before it has said yes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput, TautError
from taut.entrypoints import errors
from taut.serving.edge.bundle import Bundle, verify_bundle

_INTERRUPTED: Final = 130
_ITSELF: Final = (
    "this bundle vouches only for itself: that it is whole is shown, who made it is not. Give --key FILE or --fingerprint "
    "sha256:… that came to you by another way than the bundle\n"
)


def main(files: Mapping[str, bytes], words: Sequence[str]) -> int:
    """Carry out one command line over the files of a bundle and return its exit code. Errors are printed, never raised."""
    arguments = _parser().parse_args(words)
    try:
        return _run(files, arguments)
    except TautError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return errors.exit_code_of(error)
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"unavailable: {error.name} is not installed here: "
            "unzip -p THIS_FILE requirements.txt > requirements.txt && pip install --require-hashes -r requirements.txt\n"
        )
        return 7
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(files: Mapping[str, bytes], arguments: argparse.Namespace) -> int:
    bundle = verify_bundle(
        files,
        key=None if arguments.key is None else _key(arguments.key),
        fingerprints=tuple(arguments.fingerprint),
    )
    if bundle.trusted == "itself":
        sys.stderr.write(_ITSELF)
    if arguments.command == "verify":
        _print(_verified(bundle))
        return 0
    if arguments.command == "predict":
        from taut.entrypoints.edge.answering import predict

        _print(predict(bundle, arguments.data))
        return 0
    from taut.entrypoints.edge.answering import serve

    return serve(bundle, arguments)


def _verified(bundle: Bundle) -> dict[str, Any]:
    contents = bundle.contents
    return {
        "ok": True, "model": contents.model, "version": contents.version, "origin": contents.origin, "bundle": bundle.id,
        "trusted": bundle.trusted, "fingerprints": list(bundle.fingerprints), "signed_by": bundle.manifest.signed_by,
        "files": len(contents.files), "taut": contents.taut,
    }  # fmt: skip


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"--key {path} cannot be read ({type(error).__name__}): give a public key in PEM form"
        ) from error


def _print(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def _parser() -> argparse.ArgumentParser:
    trust = argparse.ArgumentParser(add_help=False)
    trust.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the public key or keys (PEM) that must have signed the bundle",
    )
    trust.add_argument(
        "--fingerprint", action="append", default=[], metavar="sha256:…",
        help="the key's fingerprint, as `taut model export --edge` printed it; several for several keys",
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="BUNDLE.pyz", description="A model in one file: verified before anything of it runs, then served.",
        epilog="exit codes: 0 done, 2 invalid input, 3 not found, 4 denied, 5 conflict, 7 unavailable, 8 corrupt",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="{serve,predict,verify}")
    commands.add_parser("verify", parents=[trust], help="verify the signature and every file")
    predict = commands.add_parser("predict", parents=[trust], help="answer once")
    predict.add_argument(
        "--data", required=True, metavar="JSON|@FILE|-", help="one object of the request's columns, or a list"
    )
    _serve(commands.add_parser("serve", parents=[trust], help="answer over HTTP until stopped"))
    return parser


def _serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="another address than loopback needs --tls-cert, --tls-key and --caller-token-file",
    )
    serve.add_argument("--port", type=int, default=8090, help="0 for any that is free")
    serve.add_argument(
        "--caller-token-file", type=Path, metavar="FILE", help="what callers must show as their bearer"
    )
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="PEM of the certificate and its issuers: TLS 1.3 only"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM of its private key")
    serve.add_argument("--state", type=Path, metavar="DIR", help="where counts are kept until they are told")
    serve.add_argument(
        "--keep-inputs", action="store_true", help="keep requests in the state too; never sent"
    )
    serve.add_argument(
        "--report-to", metavar="URL", help="control's address, for example https://taut.example:8081"
    )
    serve.add_argument(
        "--report-every", type=float, default=60.0, metavar="S", help="seconds between reports"
    )
    serve.add_argument(
        "--cloud", metavar="URL", help="ask https://…/v1/predict/ENDPOINT where the model is unsure"
    )
    serve.add_argument(
        "--confidence",
        type=float,
        default=0.8,
        help="the least probability of an answer that stands by itself",
    )
    serve.add_argument(
        "--cloud-timeout-ms", type=int, default=300, metavar="N", help="after which the own answer is given"
    )
    serve.add_argument("--token-file", type=Path, metavar="FILE", help="bearer for control and the cloud")
