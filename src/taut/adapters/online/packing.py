"""How rows of online features lie in a store: keys and rows as msgpack, with a sum that binds one to the other.

A row is `crc32 | msgpack of OnlineRow`, the sum taken over feature set, key and content, so that neither a flipped
byte nor a row under another entity's key is served.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import msgspec

from taut.core.errors import Corrupt, InvalidInput
from taut.core.evidence import Scalar
from taut.ports.online import OnlineRow

Key = tuple[Scalar, ...]

_MAX_KEY_BYTES: Final = 2048
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(OnlineRow).decode


def pack_key(key: Key) -> bytes:
    """Return a key's bytes. Raises InvalidInput for one that names nobody, or is too long."""
    try:
        packed = _ENCODE(key)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(f"key {str(key)[:80]} cannot be stored: {error}") from error
    if not key or None in key or len(packed) > _MAX_KEY_BYTES:
        raise InvalidInput(
            f"key {str(key)[:80]} is empty, holds a null or is longer than {_MAX_KEY_BYTES} bytes: send every part"
        )
    return packed


def pack_row(feature_set: str, key: Key, row: OnlineRow) -> tuple[bytes, int, bytes]:
    """Return (key, event time, row) as they are stored. Raises InvalidInput for what cannot be."""
    packed = pack_key(key)
    try:
        content = _ENCODE(row)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(f"the row of {str(key)[:80]} cannot be stored: {error}") from error
    return packed, row.event_time_us, _sum(feature_set, packed, content) + content


def unpack_row(feature_set: str, packed: bytes, stored: bytes) -> OnlineRow:
    """Return the row that lies under a key. Raises Corrupt for one that was not written there."""
    content = stored[4:]
    if stored[:4] == _sum(feature_set, packed, content):
        try:
            return _DECODE(content)
        except msgspec.MsgspecError:
            pass  # the sum is right, so a writer of another version wrote it: said below
    raise changed(feature_set)


def changed(feature_set: str) -> Corrupt:
    return Corrupt(
        f"the online row of {feature_set!r} is not what was written: materialise the feature set again"
    )


def _sum(feature_set: str, packed: bytes, content: bytes) -> bytes:
    return crc32(content, crc32(packed, crc32(feature_set.encode()))).to_bytes(4, "big")
