"""Predictions as server-sent events: each part of the rows is an answer like any other, recorded before it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from taut.core.errors import TautError, Unavailable
from taut.serving.gateway.replies import JSON, Reply, encode_json

MAX_STREAMS: Final = 64
_HEAD: Final = b"content-type: text/event-stream\r\ncache-control: no-store\r\n"

Answer = Callable[[Sequence[Any], bool], Awaitable[Reply]]
"""Answers some rows; told whether they are the first of the request. Never raises."""


class Done(msgspec.Struct, frozen=True):
    """The last event of a stream that came to its end. request_id: of the first event's record."""

    request_id: str
    model_version: str
    release: str
    rows: int
    events: int = 0


class Streams:
    """The streams of one gateway, `bound` at once: each holds its rows for as long as its reader takes."""

    def __init__(self, bound: int = MAX_STREAMS) -> None:
        self._bound: Final = bound
        self.open = 0

    async def begin(
        self, rows: Sequence[Any], size: int, answer: Answer, done: Done, refuse: Callable[[TautError], Reply]
    ) -> Reply:
        """Answer the first `size` rows. Where that is refused the caller is told as ever; else all follow as events."""
        if self.open >= self._bound:
            return refuse(
                Unavailable(f"{self._bound} streams are open already: ask for one answer, or again shortly")
            )
        self.open += 1
        events = EventStream(self, rows, size, answer, done)
        try:
            first = await events.first()
        except BaseException:
            events.close()
            raise
        if first.status != 200:
            events.close()
            return first
        return Reply(200, _HEAD + first.head[len(JSON) :], b"", True, events)


class EventStream:
    """The events of one stream, in the order of its rows. Whoever takes them closes it, also when he takes none."""

    def __init__(self, streams: Streams, rows: Sequence[Any], size: int, answer: Answer, done: Done) -> None:
        self._streams: Final = streams
        self._rows: Final = rows
        self._size: Final = size
        self._answer: Final = answer
        self._done: Final = done
        self._at = 0
        self._count = 0
        self._ready: Reply | None = None
        self._closed = False

    async def first(self) -> Reply:
        """Return the answer to the first rows, which becomes the first event."""
        self._ready = await self._next()
        return self._ready

    async def _next(self) -> Reply:
        start, self._at = self._at, self._at + self._size
        return await self._answer(self._rows[start : self._at], start == 0)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        reply, self._ready = self._ready, None
        if reply is None:
            if self._at >= len(self._rows):
                self.close()
                return _event(b"done", encode_json(msgspec.structs.replace(self._done, events=self._count)))
            await asyncio.sleep(0)  # what never waits would keep the loop from everybody else
            reply = await self._next()
        if reply.status != 200:
            self.close()
            return _event(b"error", reply.body)
        self._count += 1
        return _event(b"predictions", reply.body)

    def close(self) -> None:
        """Let the next stream in. Again is no error."""
        if not self._closed:
            self._closed = True
            self._streams.open -= 1


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)
