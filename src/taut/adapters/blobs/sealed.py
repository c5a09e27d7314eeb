"""Sealed files: AES-256-GCM in chunks, so that a file of any size streams through, and no cut or exchange goes unseen.

Layout: 8 bytes that say so, a salt of 16, then chunks of 256 KiB with a tag of 16 bytes each; the last may be shorter, and
is there even when it is empty. A file's key is HMAC-SHA256 of the store's key over its salt; a chunk's nonce is its number
and, in the last byte, whether it is the last one (STREAM; Hoang, Reyhanitabar, Rogaway, Vizár, 2015).
256 KiB: one call over 64 MiB costs five times as much a byte, chunks of 64 KiB a tenth more (docs/decisions/0008).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taut.core.errors import Corrupt
from taut.ports.world import Random

MAGIC: Final = b"TAUTSEA1"
_SALT_BYTES: Final = 16
_HEAD_BYTES: Final = len(MAGIC) + _SALT_BYTES
_CHUNK_BYTES: Final = 256 << 10
_TAG_BYTES: Final = 16


class Seal:
    """Seals and opens files under one key of 32 bytes. Safe for threads."""

    def __init__(self, key: bytes, random: Random) -> None:
        self._key = key
        self._random = random

    def seal(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the sealed form of a file that comes in parts of any size."""
        salt = self._random.bytes(_SALT_BYTES)
        yield MAGIC + salt
        cipher = self._cipher(salt)
        for number, last, chunk in _chunks(parts, _CHUNK_BYTES):
            yield cipher.encrypt(_nonce(number, last=last), chunk, None)

    def open(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the plain chunks. Raises Corrupt at the first that was changed, moved, cut off or added.

        What was yielded before that is authentic, and yet not all: use nothing until the end was reached.
        """
        rest = iter(parts)
        head = b""
        while len(head) < _HEAD_BYTES:
            part = next(rest, None)
            if part is None:
                raise Corrupt("a sealed file ends in its head")
            head += part
        cipher = self._cipher(head[len(MAGIC) : _HEAD_BYTES])
        body = _ahead(head[_HEAD_BYTES:], rest)
        for number, last, chunk in _chunks(body, _CHUNK_BYTES + _TAG_BYTES):
            try:
                yield cipher.decrypt(_nonce(number, last=last), chunk, None)
            except (InvalidTag, ValueError) as error:
                raise Corrupt(f"chunk {number} of a sealed file does not open") from error

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._key, b"taut/blob/1" + salt, "sha256"))


def plain_size(sealed_bytes: int) -> int:
    """Return how many bytes a sealed file of this size holds."""
    body = sealed_bytes - _HEAD_BYTES
    return body - _TAG_BYTES * max(1, -(-body // (_CHUNK_BYTES + _TAG_BYTES)))


def _chunks(parts: Iterable[bytes], size: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield (number, whether it is the last, chunk) with chunks of `size`, the last one shorter or whole."""
    held, number = bytearray(), 0
    for part in parts:
        held += part
        while len(held) > size:  # more than one: what is yielded here is not the last
            yield number, False, bytes(held[:size])
            del held[:size]
            number += 1
    yield number, True, bytes(held)


def _ahead(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
