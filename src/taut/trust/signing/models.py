"""The signed manifest of a model version, read back without belief, wherever the version was carried."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import Corrupt
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.ports.keys import PublicKey
from taut.trust.signing.statement import SignedStatement, verify_statement

PAYLOAD_TYPE: Final = "application/vnd.taut.model+json"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a version, in Blobs or in a bundle."""

    digest: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A verified manifest. payload: all that was signed; the rest is what loading needs of it."""

    ref: VersionRef
    files: dict[str, File]
    signature: ModelSignature
    payload: dict[str, Any]
    signed_by: str


def read_manifest(text: str | bytes, public_keys: tuple[PublicKey, ...], ref: VersionRef | None) -> Manifest:
    """Verify a signed manifest and return it.

    ref: the version that it must speak of; None accepts any. Raises Denied when no trusted key signed it, Corrupt when
    it was changed or speaks of another version.
    """
    statement = SignedStatement.from_json(text)
    payload = verify_statement(statement, public_keys, payload_type=PAYLOAD_TYPE)
    try:
        found = VersionRef.parse(str(payload["version"]))
        files = msgspec.convert(payload["files"], dict[str, File])
        signature = msgspec.convert(payload["signature"], ModelSignature)
    except (KeyError, msgspec.ValidationError) as error:
        raise Corrupt(f"the signed manifest lacks what a manifest has: {error}") from error
    if ref is not None and found != ref:
        raise Corrupt(f"the manifest of {ref} speaks of {found}: it was swapped; restore it")
    if signature.file not in files:
        raise Corrupt(f"the manifest of {found} names no {signature.file}")
    return Manifest(
        ref=found, files=files, signature=signature, payload=payload, signed_by=statement.signatures[0].keyid
    )
