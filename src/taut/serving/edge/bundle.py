"""The bundle: what is in the one file, under whose signature, read back without belief before anything of it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.core.schema import MODEL_FILES, Column, ModelInput, ModelSignature
from taut.ports.keys import PublicKey
from taut.trust.signing import SignedStatement, verify_statement
from taut.trust.signing.models import File, Manifest, read_manifest

PAYLOAD_TYPE: Final = "application/vnd.taut.edge+json"
_MODEL: Final = MODEL_FILES["onnx"]  # no device runs code
STATEMENT: Final = "edge.json"
MANIFEST: Final = "manifest.json"
KEYS: Final = "keys.json"
_PEM_END: Final = "-----END PUBLIC KEY-----"
Trusted = Literal["key", "fingerprint", "itself"]
"""What a bundle was verified against: a key or a fingerprint that came by another way, or only its own contents."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the model answered in training's held-out rows, to compare with.

    shares: class -> share of the rows. mean, deviation: of a regressor's values.
    """

    rows: int = 0
    shares: dict[str, float] = {}
    mean: float | None = None
    deviation: float | None = None


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The signed payload of a bundle.

    model: the name that it is asked by. version: of the registry, a variant perhaps; origin: what was asked to be
    exported. manifest: digest of the version's own signed manifest. files: every file of the bundle but the statement
    itself. features: the features that callers send, since nobody looks them up at the edge. ranges: request column ->
    the least and the greatest value that its dataset had.
    """

    model: str
    version: str
    origin: str
    manifest: str
    files: dict[str, File]
    taut: str
    features: tuple[str, ...] = ()
    expected: Expected | None = None
    ranges: dict[str, tuple[float, float]] = {}


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle whose every byte was verified. id: names it in answers and reports. signature: as it is served here."""

    id: str
    contents: Contents
    signature: ModelSignature
    manifest: Manifest
    model: bytes
    trusted: Trusted
    fingerprints: tuple[str, ...]


def fingerprint(pem: str) -> str:
    """Return `sha256:` and 64 hexadecimal digits over the DER form of a public key."""
    try:
        der = load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise InvalidInput(f"this is no public key in PEM form: {error}") from error
    return "sha256:" + hashlib.sha256(der).hexdigest()


def key_of(pem: str) -> PublicKey:
    """Return a public key for models from its PEM form."""
    return PublicKey(key_id=fingerprint(pem).removeprefix("sha256:")[:16], purpose="model", pem=pem)


def bundle_id(payload: bytes) -> str:
    return "edge_" + hashlib.sha256(payload).hexdigest()[:32]


def verify_bundle(
    files: Mapping[str, bytes], *, key: str | None = None, fingerprints: tuple[str, ...] = ()
) -> Bundle:
    """Verify every file of a bundle and both of its signatures; nothing of it was loaded or run before.

    key: the PEM of the key that is trusted, or of several. fingerprints: of keys that are trusted. With neither, the keys in the
    bundle are, and it vouches only for itself.
    Raises Corrupt naming the file that is not what was signed; Denied when nobody who is trusted signed it.
    """
    statement = SignedStatement.from_json(_needed(files, STATEMENT))
    keys, trusted = _trusted(files, key, fingerprints)
    payload = verify_statement(statement, keys, payload_type=PAYLOAD_TYPE)
    try:
        contents = msgspec.convert(payload, Contents)
    except msgspec.ValidationError as error:
        raise Corrupt(f"{STATEMENT} lacks what the statement of a bundle has: {error}") from error
    check_files(files, contents.files)
    manifest = read_manifest(files[MANIFEST], keys, None)
    if str(manifest.ref) != contents.version or digest_bytes(files[MANIFEST]) != contents.manifest:
        raise Corrupt(
            f"{MANIFEST} is that of {manifest.ref}, the bundle's is {contents.version}: export it again"
        )
    if manifest.signature.form != "onnx":
        raise Denied(f"{manifest.ref} is code, which no device runs: export an ONNX model")
    model = files[_MODEL]
    if digest_bytes(model) != manifest.files[_MODEL].digest:
        raise Corrupt(f"{_MODEL} is not the one that was signed for {manifest.ref}: export it again")
    return Bundle(
        id=bundle_id(statement.payload), contents=contents, signature=edge_signature(manifest.signature),
        manifest=manifest, model=model, trusted=trusted, fingerprints=tuple(fingerprint(one.pem) for one in keys),
    )  # fmt: skip


def check_files(files: Mapping[str, bytes], signed: Mapping[str, File]) -> None:
    """Compare every file with what was signed. Raises Corrupt naming the first that differs, is missing, or was added."""
    for name in sorted(signed):
        data = files.get(name)
        if data is None:
            raise Corrupt(f"{name} is missing from the bundle: export it again")
        if digest_bytes(data) != signed[name].digest:
            raise Corrupt(f"{name} is not what was signed: export the bundle again")
    strange = sorted(set(files) - {*signed, STATEMENT})
    if strange:
        raise Corrupt(f"{strange[0]!r} is in the bundle and nobody signed it: export it again")
    for name in (_MODEL, MANIFEST, KEYS):
        _needed(signed, name)


def _trusted(
    files: Mapping[str, bytes], key: str | None, fingerprints: tuple[str, ...]
) -> tuple[tuple[PublicKey, ...], Trusted]:
    if key is not None:
        return tuple(key_of(block + _PEM_END + "\n") for block in key.split(_PEM_END)[:-1] or [key]), "key"
    try:
        found = tuple(key_of(pem) for pem in msgspec.json.decode(_needed(files, KEYS), type=tuple[str, ...]))
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidInput) as error:
        raise Corrupt(f"{KEYS} holds no public keys: {error}") from error
    if not fingerprints:
        return found, "itself"
    kept = tuple(one for one in found if fingerprint(one.pem) in fingerprints)
    if not kept:
        raise Denied(
            f"no key of the bundle has the fingerprint {fingerprints[0][:80]}: it is not from whom you trust"
        )
    return kept, "fingerprint"


def _needed(files: Mapping[str, Any], name: str) -> Any:
    if name not in files:
        raise Corrupt(f"the bundle has no {name}: export it again")
    return files[name]


def edge_signature(signature: ModelSignature) -> ModelSignature:
    """Return the signature as it is served where nothing can be looked up: features become columns of the request.

    The request keeps its own columns, in their order, and the event time stays the last. Raises InvalidInput when a
    feature has the name of a request column.
    """
    features = tuple(item.column for item in signature.inputs if item.feature_set is not None)
    if not features:
        return signature
    taken = {column.name for column in signature.request}
    twice = sorted(taken & {column.name for column in features})
    if twice:
        raise InvalidInput(f"{twice[0]!r} is a request column and a feature: a caller could not send both")
    own: tuple[Column, ...] = signature.request
    last: tuple[Column, ...] = ()
    if signature.event_time is not None:
        own, last = own[:-1], own[-1:]
    return msgspec.structs.replace(
        signature, request=(*own, *features, *last), lookups=(),
        inputs=tuple(ModelInput(column=item.column) for item in signature.inputs),
    )  # fmt: skip
