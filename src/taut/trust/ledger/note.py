"""Checkpoints as C2SP signed notes, signed with ES256 keys.

The text of a checkpoint is three lines: origin, size in decimal, root hash in base64. The signature is of the
assigned type 0x02 (ECDSA P-256 over SHA-256 of the text, ASN.1 DER), whose key id is the first four bytes of the
SHA-256 of the public key in SPKI DER form. Sources: c2sp.org/signed-note, c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from taut.core.errors import Corrupt, InvalidInput
from taut.ports.keys import Keys
from taut.trust.ledger.values import Checkpoint

NOTE_BYTES_MAX: Final = 64 * 1024
SIGNATURES_MAX: Final = 64
_ORIGIN: Final = re.compile(r"[^\s+]{1,200}")
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class VerifyKey(NamedTuple):
    """A public key, ready to check notes."""

    id: bytes  # four bytes
    key: EllipticCurvePublicKey


def verify_key(pem: str) -> VerifyKey:
    """Read an ES256 public key. Raises InvalidInput for anything else."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise InvalidInput("this is no public key in PEM form: export it with `taut key show`") from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InvalidInput("this public key is not ECDSA on P-256, the only kind that signs the ledger")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerifyKey(sha256(der).digest()[:4], key)


def verify_keys(keys: Keys) -> tuple[VerifyKey, ...]:
    """Return the keys that may have signed this ledger's checkpoints, former ones included."""
    return tuple(verify_key(key.pem) for key in keys.public_keys(purpose="ledger"))


def check_origin(origin: str) -> str:
    """Return `origin` when it may name a log: its first line, and the name of its key."""
    if not _ORIGIN.fullmatch(origin) or not origin.isprintable():
        raise InvalidInput(
            f"ledger origin {origin[:80]!r} is not allowed: write it like example.org/taut, no space and no +"
        )
    return origin


def sign_checkpoint(keys: Keys, *, origin: str, size: int, root: bytes) -> Checkpoint:
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n"
    key_id, raw = keys.sign(text.encode(), purpose="ledger")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    signature = b64encode(bytes.fromhex(key_id)[:4] + der).decode()
    return Checkpoint(origin=origin, size=size, root=root, note=f"{text}\n— {origin} {signature}\n")


def open_checkpoint(note: str, keys: Sequence[VerifyKey], *, origin: str | None = None) -> Checkpoint:
    """Read a checkpoint after checking its signature.

    origin: the log that it must speak of; any when None. Lines after the third are allowed and ignored, signatures
    of other keys too; a wrong signature of a known key condemns the note.
    Raises Corrupt for a note that is malformed, of another origin, or not signed by one of `keys`.
    """
    text, signatures = _split(note)
    lines = text.split("\n")
    if len(lines) < 4 or not _SIZE.fullmatch(lines[1]):
        raise Corrupt("this is no checkpoint: expected origin, size and root hash on a line each")
    if origin is not None and lines[0] != origin:
        raise Corrupt(f"checkpoint speaks of the log {lines[0]!r}, not of {origin!r}: it belongs elsewhere")
    root = decode_base64(lines[2])
    if len(root) != 32:
        raise Corrupt("this is no checkpoint: its root is not 32 bytes in base64")
    _check_signatures(text, signatures, keys, name=lines[0])
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root, note=note)


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > NOTE_BYTES_MAX:
        raise Corrupt(f"note is longer than {NOTE_BYTES_MAX} bytes: this is no checkpoint")
    text, separator, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not separator or lines.pop() != "" or not 0 < len(lines) <= SIGNATURES_MAX:
        raise Corrupt("this is no signed note: expected a text, an empty line and 1 to 64 signature lines")
    if any(character < " " and character != "\n" for character in note):
        raise Corrupt("this is no signed note: it holds control characters")
    found = []
    for line in lines:
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise Corrupt("this is no signed note: a signature line is malformed")
        found.append((match[1], decode_base64(match[2])))
    return text + "\n", found


def decode_base64(text: str) -> bytes:
    """Decode strictly: one text a value, so that no flipped bit goes unseen. Raises Corrupt."""
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise Corrupt("base64 of the ledger is malformed: it was changed") from error
    if b64encode(data).decode() != text:
        raise Corrupt("base64 of the ledger is not canonical: it was changed")
    return data


def _check_signatures(
    text: str, signatures: list[tuple[str, bytes]], keys: Sequence[VerifyKey], *, name: str
) -> None:
    good = False
    for signer, signature in signatures:
        if signer != name:
            continue
        for key in keys:
            if signature[:4] != key.id:
                continue
            try:
                key.key.verify(signature[4:], text.encode(), ECDSA(hashes.SHA256()))
            except InvalidSignature as error:
                raise Corrupt("the checkpoint's signature is wrong: it was forged or changed") from error
            good = True
    if not good:
        raise Corrupt(
            "the checkpoint is signed by none of this ledger's keys: it was forged, or is another's"
        )
