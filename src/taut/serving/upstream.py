"""The way to the gateways: kept HTTP/1.1 connections to their one port, a request at a time on each."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

from httptools import HttpParserError, HttpResponseParser

from taut.core.errors import DeadlineExceeded, Unavailable
from taut.serving.snapshot.wire import socket_address

_IDLE_S: Final = 30.0  # less than a gateway's own, so that it seldom closes under a request


class Answer(NamedTuple):
    """What a gateway answered. headers: by name in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Lost(Exception):
    """The connection ended. answered: whether any of the answer had arrived."""

    def __init__(self, *, answered: bool) -> None:
        super().__init__()
        self.answered = answered


class _Connection(asyncio.Protocol):
    """One connection; `ask` again only after the last answer. until_s: until when its other end may be asked, in seconds since 1970."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self.until_s = math.inf
        self._reset()

    def _reset(self) -> None:
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._heard = False

    async def ask(self, request: bytes) -> Answer:
        if self.closed:
            raise _Lost(answered=False)
        assert self._transport is not None
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            if self._answer.cancelled() and self._transport is not None:
                self._transport.abort()  # its answer must not be taken for the next one's

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, and do not say so

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._fail()
            self.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._fail()
        self._transport = None

    def _fail(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Lost(answered=self._heard))

    # httptools'

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(
                Answer(self._parser.get_status_code(), self._headers, b"".join(self._parts))
            )


class Secured(NamedTuple):
    """How gateways are verified where they speak TLS. server_name: that TLS asks for. until_s: says of a connection until when
    its other end may be asked, in seconds since 1970; 0.0 for not at all."""

    context: ssl.SSLContext
    server_name: str
    until_s: Callable[[ssl.SSLObject], float]


class Upstream:
    """Asks the gateways of one home.

    host, port: where they listen. tls: how they are verified where they speak TLS there; asked for each new connection. path: the Unix socket where they listen instead; gateways that speak TLS have one,
    which nobody but the owner reaches. connections: at most so many at once; who comes later waits.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connections: int,
        path: Path | None = None,
        tls: Callable[[], Secured] | None = None,
    ) -> None:
        self._tls: Final = tls
        self._host: Final = host
        self._port: Final = port
        self._path: Final = path
        self._slots: Final = asyncio.Semaphore(connections)
        self._idle: Final[list[tuple[_Connection, float]]] = []

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_s: float,
    ) -> Answer:
        """Return the answer. A question whose kept connection ended before any of it came is asked once more.

        headers: of printable ASCII, as gRPC's metadata is. Raises Unavailable when no gateway answers, DeadlineExceeded
        when none does in time.
        """
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        request = "\r\n".join([*lines, "\r\n"]).encode("ascii") + body
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._ask(request)
        except TimeoutError:
            raise DeadlineExceeded("no gateway answered in time: allow more time or send less") from None
        except ssl.SSLError as error:
            raise Unavailable(
                f"who answers is not who was asked for ({error.reason or 'no TLS'}): look at `taut machine list`"
            ) from error
        except (_Lost, OSError) as error:
            raise Unavailable(
                "the gateway that was asked is gone or does not listen: ask again shortly"
            ) from error

    async def _ask(self, request: bytes) -> Answer:
        kept = self._kept()
        if kept is not None:
            try:
                return await self._on(kept, request)
            except _Lost as lost:
                if lost.answered:
                    raise
        loop = asyncio.get_running_loop()
        if self._path is None:
            fresh = await self._connect(loop)
        else:
            with socket_address(self._path) as address:
                _, fresh = await loop.create_unix_connection(_Connection, address)
        return await self._on(fresh, request)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        """Connect, and be sure of who is there. Raises Unavailable where it may not be asked."""
        if self._tls is None:
            _, plain = await loop.create_connection(_Connection, self._host, self._port)
            return plain
        secured = self._tls()
        transport, fresh = await loop.create_connection(
            _Connection, self._host, self._port, ssl=secured.context, server_hostname=secured.server_name
        )
        fresh.until_s = secured.until_s(transport.get_extra_info("ssl_object"))
        if fresh.until_s <= time.time():
            fresh.close()
            raise Unavailable("the machine that was asked shows an identity that is over or was revoked")
        return fresh

    async def _on(self, connection: _Connection, request: bytes) -> Answer:
        answer = await connection.ask(request)
        if not connection.closed:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        return answer

    def _kept(self) -> _Connection | None:
        oldest_s = asyncio.get_running_loop().time() - _IDLE_S
        while self._idle:
            connection, since_s = self._idle.pop()
            if not connection.closed and since_s > oldest_s and connection.until_s > time.time():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close what is kept."""
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()
