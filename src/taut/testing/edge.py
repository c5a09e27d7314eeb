"""Bundles for tests: small models, signed by keys that tests hold."""

from __future__ import annotations

from typing import Any

import msgspec

from taut.core.canonical import canonical_json, digest_bytes
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.entrypoints.edge.package import assemble, runner_files
from taut.lifecycle.registry import Candidate, File
from taut.lifecycle.registry.manifest import sign_manifest
from taut.ports.keys import Keys
from taut.serving.edge.bundle import KEYS, MANIFEST, PAYLOAD_TYPE, STATEMENT, Contents
from taut.testing.serving import matrix_model, matrix_signature
from taut.trust.signing import sign_statement


def file_of(data: bytes) -> File:
    return File(digest=digest_bytes(data), size_bytes=len(data))


def bundle_files(
    keys: Keys,
    *,
    model: bytes | None = None,
    signature: ModelSignature | None = None,
    runner: bool = False,
    **contents: Any,
) -> dict[str, bytes]:
    """Return the files of a bundle of `delay@1`, a classifier over `x0` and `x1` unless told otherwise.

    runner: with what makes the file run. contents: further fields of `Contents`.
    """
    data = matrix_model(2) if model is None else model
    candidate = Candidate(
        model="delay", run="run_1", author="ada", files={"model.onnx": file_of(data)},
        signature=matrix_signature(2) if signature is None else signature, label="late", metrics={}, snapshots={},
        bundle="sha256:b", lock="sha256:l", data="sha256:d", seed=0,
    )  # fmt: skip
    manifest = sign_manifest(keys, VersionRef("delay", 1), candidate).to_json()
    pems = [key.pem for key in keys.public_keys(purpose="model")]
    files = {
        "model.onnx": data,
        MANIFEST: manifest,
        KEYS: canonical_json(pems),
        **(runner_files() if runner else {}),
    }
    told = Contents(
        model="delay", version="delay@1", origin="delay@1", manifest=digest_bytes(manifest), taut="0",
        files={name: file_of(found) for name, found in files.items()}, **contents,
    )  # fmt: skip
    return signed(keys, files, told)


def signed(keys: Keys, files: dict[str, bytes], contents: Contents) -> dict[str, bytes]:
    """Return the files with a statement that `keys` sign."""
    payload = msgspec.to_builtins(contents)
    statement = sign_statement(keys, purpose="model", payload_type=PAYLOAD_TYPE, payload=payload)
    return {**files, STATEMENT: statement.to_json()}


def bundle_bytes(files: dict[str, bytes]) -> bytes:
    """Return the one file."""
    return assemble(files)
