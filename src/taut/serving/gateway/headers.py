"""Reading what the headers of a request say, each once and within its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.serving.errors import Malformed

_DECIDING: Final = (
    b"authorization", b"taut-deadline-ms", b"taut-priority", b"taut-subject", b"content-encoding", b"host",
    b"inference-header-content-length", b"taut-stream-rows",
)  # fmt: skip


def whole_number(name: bytes, value: bytes, low: int, high: int) -> int:
    """Return the number that a header carries. Raises Malformed, naming the header."""
    if value.isdigit() and len(value) < 10 and low <= int(value) <= high:
        return int(value)
    raise Malformed(f"{name.decode()}: saw {value[:40]!r}, wanted a whole number from {low} to {high}")


def single_headers(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name. Raises Malformed when one that decides something came twice: which would hold?"""
    found = dict(headers)
    if len(found) != len(headers):
        names = [name for name, _ in headers]
        twice = [name for name in _DECIDING if names.count(name) > 1]
        if twice:
            raise Malformed(f"header {twice[0].decode()} was sent more than once: send it once")
    return found
