"""Which requests are traced, and the bounded buffer between the path and the exporter."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from taut.ports.world import Random
from taut.serving.meters import TraceReading
from taut.serving.tracing.context import Trace, parse_traceparent

CAPACITY: Final = 2048

Stage = tuple[str, int, int]
"""A stage's name, its begin and its end on the gateway's counter, in nanoseconds."""


class RequestSpan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One traced request, done.

    start_us: wall clock at `started_ns` of the counter. code: of the error, empty for an answer.
    """

    trace: Trace
    route: str
    endpoint: str
    version: str
    request_id: str
    status: int
    code: str
    start_us: int
    started_ns: int
    ended_ns: int
    stages: tuple[Stage, ...]

    @property
    def spans(self) -> int:
        return 1 + len(self.stages)


class Tracer:
    """Decides and remembers; the event loop puts in, the exporter's thread takes out.

    ratio: of the requests that no trace of a caller decides about, 0 to 1. capacity: requests in the buffer.
    Guarantees: a full buffer costs spans, counted, never time.
    """

    def __init__(self, *, ratio: float, random: Random, capacity: int = CAPACITY) -> None:
        self._ratio: Final = ratio
        self._random: Final = random
        self._capacity: Final = capacity
        self._done: Final[deque[RequestSpan]] = deque()
        self.exported = 0
        self.failed = 0
        self._dropped = 0

    def begin(self, traceparent: bytes | None) -> Trace | None:
        """Return the trace that a request is recorded under; None for most. The caller's own decision is kept."""
        trace = None if traceparent is None else parse_traceparent(traceparent)
        if trace is not None:
            return trace if trace.sampled else None
        if self._ratio and self._random.uniform() < self._ratio:
            return Trace(self._random.bytes(16).hex(), "", True)
        return None

    def finish(self, span: RequestSpan) -> None:
        if len(self._done) >= self._capacity:
            self._dropped += span.spans
            return
        self._done.append(span)

    def take(self, most: int) -> list[RequestSpan]:
        """Return the oldest, which are then the caller's to deliver."""
        found: list[RequestSpan] = []
        while self._done and len(found) < most:
            found.append(self._done.popleft())
        return found

    def reading(self) -> TraceReading:
        return TraceReading(exported=self.exported, dropped=self._dropped, failed=self.failed)
