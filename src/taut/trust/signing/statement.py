"""An envelope in the manner of DSSE over canonical JSON, signed with ES256 for one purpose.

Source: DSSE v1.0 (secure-systems-lab/dsse), whose pre-authentication encoding and JSON form are used as they are. What
differs: the signature also binds the purpose of its key (see `taut.ports.keys.separated`), and the payload must be
canonical JSON, so that equal statements have equal bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final, get_args

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.ports.keys import UNSEPARATED, Keys, PublicKey, Purpose, separated

_HASH: Final = ec.ECDSA(hashes.SHA256())
_SIGNATURE_BYTES: Final = 64


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keyid: str
    sig: bytes  # raw r || s; base64 in JSON


class SignedStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A payload and who signed it; in JSON `{"payload", "payloadType", "purpose", "signatures"}`.

    Not to be believed before `verify_statement` returned its payload: that is the only way to read it.
    """

    payload: bytes  # canonical JSON; base64 in JSON
    payload_type: str
    purpose: str
    signatures: tuple[Signature, ...]

    def to_json(self) -> bytes:
        return canonical_json(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> SignedStatement:
        """Decode without believing. Raises Corrupt on anything but a whole statement."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Corrupt(f"this is no signed statement: {error}") from error


def sign_statement(
    keys: Keys, *, purpose: Purpose, payload_type: str, payload: dict[str, Any]
) -> SignedStatement:
    """Sign `payload` with the current key of `purpose`.

    payload_type: what the payload is, such as `application/vnd.taut.model+json`; readers ask for exactly that.
    Raises InvalidInput when the payload cannot be JSON.
    """
    body = canonical_json(payload)
    if not payload_type.isascii() or not payload_type:
        raise InvalidInput(f"payload type {payload_type!r} is not allowed: use a media type in ASCII")
    key_id, signature = keys.sign(_encode(payload_type, body), purpose=purpose)
    return SignedStatement(
        payload=body,
        payload_type=payload_type,
        purpose=purpose,
        signatures=(Signature(keyid=key_id, sig=signature),),
    )


def verify_statement(
    statement: SignedStatement, public_keys: Iterable[PublicKey], *, payload_type: str
) -> dict[str, Any]:
    """Return the payload of a statement that one of `public_keys` signed as `payload_type`.

    public_keys: those that are trusted for this, all of one purpose.
    Raises Denied when the statement is of another type or purpose or no trusted key signed it; Corrupt when a trusted
    key's signature does not fit the bytes, or the payload is no canonical JSON object.
    """
    trusted = {key.key_id: key for key in public_keys}
    if statement.payload_type != payload_type:
        raise Denied(
            f"statement is of type {statement.payload_type[:80]!r}, not {payload_type!r}: give the right one"
        )
    if statement.purpose not in {key.purpose for key in trusted.values()}:
        raise Denied(
            f"statement was signed for {statement.purpose[:80]!r}, which none of the trusted keys serves: give a "
            "statement signed for the purpose that is asked"
        )
    known = [signature for signature in statement.signatures if signature.keyid in trusted]
    if not known:
        signers = ", ".join(signature.keyid[:16] for signature in statement.signatures) or "nobody"
        raise Denied(
            f"statement was signed by {signers}: no trusted key; trust that key, or have it signed again"
        )
    message = _encode(payload_type, statement.payload)
    for signature in known:
        verify_signature(trusted[signature.keyid], message, signature.sig, purpose=statement.purpose)
    return _decode_payload(statement.payload)


def verify_signature(key: PublicKey, message: bytes, signature: bytes, *, purpose: str) -> None:
    """Check what `Keys.sign(message, purpose=purpose)` returned.

    Raises Denied when `key` serves another purpose, Corrupt when the signature does not fit.
    """
    if key.purpose != purpose or purpose not in get_args(Purpose):
        raise Denied(
            f"key {key.key_id} serves {key.purpose}, not {purpose}: a signature is valid for one purpose only"
        )
    public = load_pem_public_key(key.pem.encode())
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise InvalidInput(f"key {key.key_id} is no P-256 key: taut signs with ES256 only")
    if len(signature) != _SIGNATURE_BYTES:
        raise Corrupt(f"signature by key {key.key_id} has {len(signature)} bytes, not {_SIGNATURE_BYTES}")
    try:
        public.verify(_der(signature), separated(message, purpose=purpose), _HASH)
    except InvalidSignature as error:
        raise Corrupt(
            f"signature by key {key.key_id} for {purpose} does not fit: the statement was changed after it was signed"
        ) from error


def as_dsse(statement: SignedStatement) -> dict[str, Any]:
    """Return a statement as the DSSE envelope that other tools read: signatures in DER, without the purpose.

    Only statements of a purpose that is signed as it is verify elsewhere (`taut.ports.keys.UNSEPARATED`): others raise
    InvalidInput.
    """
    if statement.purpose not in UNSEPARATED:
        raise InvalidInput(
            f"statements for {statement.purpose} bind their purpose, which other tools do not know: they verify here only"
        )
    return {
        "payload": b64encode(statement.payload).decode(),
        "payloadType": statement.payload_type,
        "signatures": [
            {"keyid": one.keyid, "sig": b64encode(_der(one.sig)).decode()} for one in statement.signatures
        ],
    }


def _der(signature: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def _encode(payload_type: str, body: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: type and body with their lengths, so that neither can be moved."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def _decode_payload(body: bytes) -> dict[str, Any]:
    try:
        payload = msgspec.json.decode(body, type=dict[str, Any])
        canonical = canonical_json(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidInput) as error:
        raise Corrupt(f"statement's payload is no JSON object: {error}") from error
    if canonical != body:
        raise Corrupt(
            "statement's payload is not canonical JSON: it was not written by taut; have it signed again"
        )
    return payload
