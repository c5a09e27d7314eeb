"""Who may read a segment: whoever holds the installation's key, and not the gateway that wrote it.

A gateway holds no key of the installation and must not be able to read what others wrote, or what it wrote before. So each
segment has a key of its own, agreed between a pair made for it and the installation's public key, which the signed
snapshot carries; the pair's public half lies in the segment's head, its private half is forgotten at once.
Source: ECIES as in RFC 9180 (DHKEM with X25519 and HKDF-SHA256), without its framing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from taut.core.errors import Corrupt, Denied
from taut.ports.world import Random

LOCK_BYTES: Final = 40
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = LOCK_BYTES - _KEY_BYTES


class SegmentLock(NamedTuple):
    """One segment's key. head: what its reader needs beside the installation's key; it is no secret."""

    head: bytes
    cipher: AESGCM


def lock_segment(recipient: str, random: Random) -> SegmentLock:
    """Return a key for one segment that only the holder of `recipient` can find again.

    recipient: the installation's public key, X25519, hexadecimal. Raises Corrupt when it is none.
    """
    try:
        public = bytes.fromhex(recipient)
        pair = X25519PrivateKey.from_private_bytes(random.bytes(_KEY_BYTES))
        shared = pair.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise Corrupt(
            f"the snapshot's key of the prediction log is no X25519 key ({error}): issue a newer snapshot"
        ) from error
    ours = pair.public_key().public_bytes_raw()
    return SegmentLock(_key_id(public) + ours, _cipher(shared, ours, public))


class SegmentKeys:
    """The reading end. private: gives the installation's keys, 32 bytes each, the newest first.

    They are asked when a segment is met whose key is not known yet, then remembered.
    """

    def __init__(self, private: Callable[[], Sequence[bytes]]) -> None:
        self._find: Final = private
        self._known: dict[bytes, X25519PrivateKey] = {}

    @property
    def public(self) -> str:
        """Return the key that segments are sealed to from now on, as the snapshot carries it; asked anew each time."""
        return _public(X25519PrivateKey.from_private_bytes(self._find()[0])).hex()

    def cipher(self, head: bytes) -> AESGCM:
        """Return the key of a segment. Raises Denied when it was sealed to another installation, Corrupt for no key."""
        key_id, ours = head[:_KEY_ID_BYTES], head[_KEY_ID_BYTES:]
        if key_id not in self._known:  # a rotation may have been since
            found = map(X25519PrivateKey.from_private_bytes, self._find())
            self._known = {_key_id(_public(one)): one for one in found}
        private = self._known.get(key_id)
        if private is None:
            raise Denied(
                "a segment of the prediction log is sealed to another key: open it where its installation is"
            )
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(ours))
        except ValueError as error:
            raise Corrupt("a segment's head holds no key: restore it from a backup") from error
        return _cipher(shared, ours, _public(private))


def _without() -> Sequence[bytes]:
    raise Denied("the prediction log is sealed: read it through control, which holds its key")


NO_KEYS: Final = SegmentKeys(_without)
"""Of whoever may only write, and read what lies open."""


def _cipher(shared: bytes, ours: bytes, public: bytes) -> AESGCM:
    info = b"taut/prediction-segment/1" + ours + public
    return AESGCM(HKDF(hashes.SHA256(), _KEY_BYTES, None, info).derive(shared))


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:_KEY_ID_BYTES]
