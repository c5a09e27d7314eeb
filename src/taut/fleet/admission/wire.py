"""How the words of admission become bytes that can be believed: answers under its own key, beats under the replica's.

A replica makes its key when it starts and never writes it down. The key is bound to it by the join token that it is first
used with; from then on its thumbprint is part of every ticket.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from taut.core.errors import Corrupt, Denied
from taut.fleet.admission.messages import Answer, Attest, Beat, Leaving, Message, Shown, Vouched
from taut.ports.keys import Keys, PublicKey
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

ANSWER_TYPE: Final = "application/vnd.taut.admission-answer+json"
MESSAGE_BYTES_MAX: Final = 64 * 1024
_DOMAIN: Final = b"taut/replica\n"
_HASH: Final = ec.ECDSA(hashes.SHA256())
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.__name__: msgspec.json.Decoder(kind) for kind in (Attest, Beat, Shown, Vouched, Leaving)
}


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    body: bytes
    public: bytes  # DER, P-256
    signature: bytes


class ReplicaKey:
    """A key for one incarnation, in memory only. It signs what the incarnation says."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._public = self._private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def thumbprint(self) -> str:
        return thumbprint(self._public)

    def sign(self, message: Message) -> bytes:
        """Return the message as bytes that `open_message` believes. Raises Denied for one in another key's name."""
        if message.key != self.thumbprint:
            raise Denied(
                f"the message names key {message.key[:16]}, this is {self.thumbprint[:16]}: name this one"
            )
        kind, body = type(message).__name__, msgspec.json.encode(message)
        signature = self._private.sign(_signed(kind, body), _HASH)
        return msgspec.json.encode(_Signed(kind=kind, body=body, public=self._public, signature=signature))


def open_message(data: bytes) -> Message:
    """Return what a replica said, by the key that the message names. Whether that key may speak, admission knows.

    Raises Corrupt for what is no such message, Denied for one that its key did not sign.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise Corrupt(f"a replica's message of {len(data)} bytes is beyond {MESSAGE_BYTES_MAX}: refuse it")
    try:
        envelope = msgspec.json.decode(data, type=_Signed)
        public = load_der_public_key(envelope.public)
        message: Message = _DECODERS[envelope.kind].decode(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError) as error:
        raise Corrupt(f"this is no message of a replica: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise Denied("a replica's message is signed with another kind of key than P-256: refuse it")
    try:
        public.verify(envelope.signature, _signed(envelope.kind, envelope.body), _HASH)
    except InvalidSignature as error:
        raise Denied("a replica's message was not signed by the key that it brings: refuse it") from error
    if message.key != thumbprint(envelope.public):
        raise Denied(f"a message in the name of key {message.key[:16]} is signed by another: refuse it")
    return message


def sign_answer(keys: Keys, answer: Answer) -> SignedStatement:
    """Return an answer, with every ticket in it, signed by the `admission` key."""
    payload = msgspec.to_builtins(answer)
    return sign_statement(keys, purpose="admission", payload_type=ANSWER_TYPE, payload=payload)


def open_answer(data: bytes, trusted: Iterable[PublicKey]) -> Answer:
    """Return the answer in a signed statement's JSON. Raises Corrupt or Denied as `verify_statement` does."""
    payload = verify_statement(SignedStatement.from_json(data), trusted, payload_type=ANSWER_TYPE)
    try:
        return msgspec.convert(payload, Answer)
    except msgspec.ValidationError as error:
        raise Corrupt(
            f"the answer is signed, but of another shape than this version reads: {error}"
        ) from error


def thumbprint(public_der: bytes) -> str:
    """Return the name of a key: `sha256:` and the base64 of the digest of its DER form."""
    return "sha256:" + b64encode(hashlib.sha256(public_der).digest()).decode()


def _signed(kind: str, body: bytes) -> bytes:
    return _DOMAIN + kind.encode() + b"\n" + body
