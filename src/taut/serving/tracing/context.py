"""The trace that a request belongs to, as its `traceparent` says.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/ (Recommendation of 23 November 2021), section 3.2.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Where a request stands in a trace. Both in hexadecimal; parent_id is empty where the trace begins here.

    sampled: whether whoever began it wants it recorded.
    """

    trace_id: str
    parent_id: str
    sampled: bool


def parse_traceparent(value: bytes) -> Trace | None:
    """Return what the header says; None for a malformed one, which the standard wants to be as good as none.

    Of versions to come the part that this one knows is read.
    """
    match = _TRACEPARENT.fullmatch(value.strip())
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    return Trace(trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & 1))
