"""Canonical JSON and digests: the one way in which taut turns a value into bytes that are hashed or signed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput

_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> bytes:
    """Encode `value` as JSON with sorted keys and no white space; equal values give equal bytes.

    value: anything that msgspec encodes (builtins, Structs, datetimes, enums).
    Raises InvalidInput on NaN and infinities (JSON has none; msgspec would write null in silence), on half a
    surrogate and on types that JSON cannot carry.
    """
    try:
        # ordered here too: a set has become a list, in the order of this process's hashes, before the encoder sees it
        builtins = msgspec.to_builtins(value, str_keys=True, order="deterministic")
        encoded = _ENCODER.encode(builtins)
    except (TypeError, ValueError) as error:  # half a surrogate is a ValueError of the encoder
        raise InvalidInput(f"value cannot be written as JSON: {error}") from error
    if b"null" in encoded:  # what is not finite was written so; the walk costs more than all the rest
        _refuse_non_finite(builtins, "$")
    return encoded


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise InvalidInput(f"{path} is {value}: JSON has no such number; use null or a string")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}[{index}]")


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of `data`, written `sha256:` and 64 hexadecimal digits."""
    return _PREFIX + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Return the digest of `value`'s canonical JSON."""
    return digest_bytes(canonical_json(value))


def parse_digest(text: str) -> str:
    """Return `text` when it is a well-formed digest.

    Raises InvalidInput otherwise, so that a digest can safely become a path.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is no digest: expected sha256: and 64 hexadecimal digits")
    return text
