"""Keys: wrap, unwrap, sign. Key material never leaves."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

Purpose = Literal[
    "ledger", "bundle", "model", "snapshot", "token", "data", "subject", "admission", "scale", "provenance", "svid",
]  # fmt: skip
"""What a key is for. One key serves one purpose; a signature for one is never valid for another."""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """An ES256 (P-256) public key. `key_id` is the first 16 hexadecimal digits of sha256 over the DER form."""

    key_id: str
    purpose: str
    pem: str


class Keys(Protocol):
    """A holder of keys: a file store under a passphrase or the operating system's protection, an HSM, a KMS.

    Guarantees: private and wrapping keys cannot be read through this port; a wrapped key can be unwrapped only with
    the same `context`; signatures are ECDSA P-256 over SHA-256, raw `r || s` of 64 bytes. Keys of a purpose are made
    on first use; `rotate` adds a new current key and keeps the old ones for unwrapping and verifying.

    Not guaranteed: constant time; that `sign` is deterministic.

    Errors: Corrupt when a wrapped key or the store was changed; Denied when the store cannot be opened (wrong
    passphrase, permissions); Unavailable when the holder does not answer.
    """

    def wrap(self, plain: bytes, *, purpose: Purpose, context: bytes) -> bytes:
        """Encrypt a data key of up to 4 KiB under the current wrapping key of `purpose`, bound to `context`."""
        ...

    def unwrap(self, wrapped: bytes, *, purpose: Purpose, context: bytes) -> bytes: ...

    def sign(self, message: bytes, *, purpose: Purpose) -> tuple[str, bytes]:
        """Return (key id, signature) over `message`, with the purpose bound in by domain separation.

        What is signed is `b"taut/" + purpose + b"\\n" + message`, except for `token`, `ledger`, `provenance` and `svid`, whose formats
        (JWS, C2SP notes, DSSE, X.509) bring their own separation and are signed as they are.
        """
        ...

    def public_keys(self, *, purpose: Purpose) -> tuple[PublicKey, ...]:
        """Return the keys that may verify, the current one first."""
        ...

    def rotate(self, *, purpose: Purpose) -> PublicKey: ...


UNSEPARATED: Final[frozenset[str]] = frozenset({"token", "ledger", "provenance", "svid"})
"""Purposes whose formats (JWS, C2SP notes, DSSE, X.509) bring their own domain separation."""


def separated(message: bytes, *, purpose: str) -> bytes:
    """Return the bytes that a signature for `purpose` covers; see `Keys.sign`."""
    return message if purpose in UNSEPARATED else b"taut/" + purpose.encode() + b"\n" + message
