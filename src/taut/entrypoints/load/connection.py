"""One connection with one request on its way at most, as cheap as a client in Python can be."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

import httptools

_REFUSED: Final = 400


class Owner(Protocol):
    """Who is told what becomes of requests."""

    def opened(self, connection: Connection) -> None:
        """The connection was made, and may send."""

    def ready(self, connection: Connection) -> None:
        """The connection may send again."""

    def answered(self, connection: Connection, status: int) -> None:
        """The request's answer is there, to its last byte."""

    def refused(self, status: int, body: bytes) -> None:
        """A piece of a refusal's body."""

    def lost(self, connection: Connection, why: str) -> None:
        """The connection is gone, with whatever was on its way."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1, for an owner who knows which request is on its way."""

    def __init__(self, owner: Owner) -> None:
        self._owner: Final = owner
        self._transport: asyncio.WriteTransport | None = None
        self._parser: Final = httptools.HttpResponseParser(self)
        self._why = "the connection was closed"

    def send(self, request: bytes) -> None:
        assert self._transport is not None, "it was made"
        self._transport.write(request)

    def close(self, why: str) -> None:
        """Give the connection up, with whatever is on its way."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own are no subclasses
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close("the answer was no HTTP")

    def on_body(self, body: bytes) -> None:
        status = int(self._parser.get_status_code())
        if status >= _REFUSED:
            self._owner.refused(status, body)

    def on_message_complete(self) -> None:
        status = int(self._parser.get_status_code())
        if status < 200:  # an interim answer: the real one follows
            return
        keeps = self._parser.should_keep_alive()
        self._owner.answered(self, status)
        if keeps:
            self._owner.ready(self)
        else:
            self.close("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.lost(self, self._why if error is None else f"{type(error).__name__}")
