"""uvicorn's HTTP protocol with the bounds that it lacks, for both planes.

Bounds: bytes and number of headers, bytes of framing between bytes of the body, the time that a request may take to arrive
and an answer to be taken, idle time, pipelined requests. Whoever is refused is told why, after the answers that he is owed,
and hears it though he is still sending.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from taut.core.errors import TautError
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway.crowd import Crowd, leave

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
MAX_PIPELINED: Final = 128
ARRIVAL_S: Final = 20.0
IDLE_S: Final = 75.0
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 16 * 2**20
SWEEP_S: Final = 1.0
_SLICE: Final = 4096  # of a read: what follows is not looked at while requests of it wait for their answers
_BODY_SLICE: Final = 64 * 1024
_DECIDING: Final = frozenset((b"expect", b"transfer-encoding"))
_STEP_BYTES: Final = 4096  # whoever takes less of an answer than this counts as taking nothing


class Stop(Exception):
    """Ends the parser's work on what arrived: the answer is given, or known."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    began_s: when the request that is arriving began to, None while none is. idle_s: when the last answer left.
    heard: whether anything ever came. sent: the headers of the request that is arriving, without trailers.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        crowd: Crowd,
        stalled_s: float,
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd: Final = crowd
        self._stalled_s: Final = stalled_s
        self._time: Final = _loop.time
        self._read_bytes = 0  # since the message began, or the last of its body came
        self._in_body = False
        self._held = b""  # read, and not looked at before the requests ahead of it are answered
        self._complaint: TautError | None = None  # to be said after the answers that are still owed
        self._over_s: float | None = None  # since when nothing is read that comes
        self._dropped_bytes = 0
        self._unsent = (0, 0.0)  # bytes of answers that are not taken, and since when not
        self.sent: list[tuple[bytes, bytes]] = []
        self.version = ""
        self.began_s: float | None = None
        self.idle_s: float | None = None
        self.heard = False

    @abstractmethod
    def refusal(self, error: TautError) -> bytes:
        """Return the answer to a request that is refused before anybody looks at it, as it goes over the wire."""

    def read_through(self) -> None:
        """Hear that all of a read was parsed."""

    # what arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.began_s = self._time()
        refused = self._crowd.admit(self, self.began_s)
        if refused is not None:
            self.refuse(refused)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._over_s is not None or self._complaint is not None:
            self._drop(len(data))
        elif self._held:
            self._hold(self._held + data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if len(data) <= _SLICE:
            self._feed(data)
        else:
            self._feed_slices(data)
        if self._over_s is None:
            self.read_through()

    def _feed_slices(self, data: bytes) -> None:
        """Parse a long read bit by bit: one of it may hold thousands of requests, for each of which something is kept."""
        at, size = 0, _SLICE
        while at < len(data) and self._over_s is None and self._complaint is None:
            if self.pipeline:
                self._hold(data[at:])
                return
            self._feed(data[at : at + size])
            at += size
            # a body that goes on has few requests after it
            size = min(2 * size, _BODY_SLICE) if self._in_body else _SLICE

    def _feed(self, data: bytes) -> None:
        while data:
            self._read_bytes += len(data)
            rest = b""
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]  # nothing is upgraded to: what follows is the next request
            except HttpParserError:
                self.refuse(Malformed("what arrived is no request of HTTP 1.1: mend the client"))
            if self._read_bytes > MAX_HEADER_BYTES:
                self._beyond()
            data = b"" if self._over_s is not None or self._complaint is not None else rest

    def _beyond(self) -> None:
        """Refuse a request for what it takes on the wire, when that is too much."""
        if self._in_body:
            said = f"{MAX_HEADER_BYTES} bytes of chunk sizes, extensions or trailers came without any of the body"
            self.refuse(TooLarge(f"{said}: send fewer"))
        else:
            said = f"the headers are larger than {MAX_HEADER_BYTES} bytes: send fewer or shorter ones"
            self.refuse(TooLarge(said))

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.flow.pause_reading()

    def _resume(self) -> None:
        """Look at what was held back."""
        if self.pipeline or self.transport.is_closing():
            return
        held, self._held = self._held, b""
        self.flow.resume_reading()
        if self._over_s is None and self._complaint is None:
            self._take(held)

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > LINGER_BYTES and not self._owes():
            self.transport.close()

    def eof_received(self) -> None:
        """Tell whoever hung up amid a request that it is none; the connection ends then, and so does what it waits for."""
        if self.began_s is not None and self.heard and not self._owes():
            self.refuse(Malformed("the connection ended before the request did: send it whole"))

    def on_message_begin(self) -> None:
        if self._over_s is not None or self._complaint is not None or self.transport.is_closing():
            raise Stop
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.began_s = self._time()
        self.idle_s = None
        self._read_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _DECIDING:
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                self.reject(
                    Malformed(
                        "transfer-encoding: only chunked is read, and in HTTP 1.1: send that or a length"
                    )
                )
        self.headers.append((name, value))

    def head_complete(self) -> None:
        """Look at a request's head. Raises Stop when it is refused."""
        parser = self.parser
        self.sent, self.headers = self.headers, []  # what comes after the body is believed by nobody
        self.version = parser.get_http_version()
        self._in_body = True
        self._read_bytes = 0
        if self.version not in ("1.1", "1.0"):
            self.reject(Malformed(f"HTTP {self.version} is not spoken here: use 1.1"))
        if len(self.sent) > MAX_HEADERS:
            self.reject(TooLarge(f"the request has more than {MAX_HEADERS} headers: send fewer"))
        if parser.should_upgrade():
            self._check_upgrade()
        if self.url[:7].lower() == b"http://":
            self.url = b"/" + self.url[7:].partition(b"/")[2]

    def _check_upgrade(self) -> None:
        """Refuse what would not end where it says: the parser takes the body of an upgrade for another protocol's."""
        if self.parser.get_method() == b"CONNECT":
            self.reject(Malformed("this is no proxy: send requests for its own paths"))
        if any(
            name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in self.sent
        ):
            self.reject(Malformed("a request to upgrade came with a body: send it without `upgrade`"))

    def on_body(self, body: bytes) -> None:
        self._read_bytes = 0
        super().on_body(body)

    def message_complete(self) -> None:
        """Note that a request has arrived."""
        self.began_s = None
        self._in_body = False
        if self.cycle is not None:
            self.cycle.more_body = False  # uvicorn forgets it where the answer came first
        self._read_bytes = 0

    # answers

    def on_response_complete(self) -> None:
        """Turn to what the connection still holds; unlike uvicorn's, read on only when that is nothing."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._over_s is not None:
            self.pipeline.clear()
            return
        now_s = self._time()
        if self.began_s is not None:
            self.began_s = now_s  # while it stood in line nothing of it was read
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.idle_s = now_s  # idle time is the sweeper's
        if self.pipeline:
            return
        if self._complaint is not None:
            if not self._owes():
                self.refuse(self._complaint)
        elif self._held:
            self.loop.call_soon(self._resume)
        else:
            self.flow.resume_reading()

    # bounds

    def answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None before the first

    def owing(self) -> None:
        """Hold back what follows. Whoever sends more requests than may wait is refused the rest."""
        self.flow.pause_reading()
        if len(self.pipeline) > MAX_PIPELINED:
            said = f"more than {MAX_PIPELINED} requests wait on this connection: take answers first"
            self._complaint = TooLarge(said)

    def _owes(self) -> bool:
        """Whether answers are still due to requests that arrived whole."""
        return bool(self.pipeline) or not (self.answered() or self._awaits_body())

    def _awaits_body(self) -> bool:
        cycle = self.cycle
        return cycle.more_body and not cycle.response_started

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if it had not asked, and strangers cannot fill a log."""

    def expire(self, now_s: float, *, arrival_s: float, idle_s: float) -> None:
        """End the connection when its request takes too long to arrive, its answer to be taken, or none comes."""
        if self._stalled(now_s):
            self.transport.abort()
        elif self._over_s is not None:
            if now_s - self._over_s > LINGER_S:
                self.transport.close()
        elif self.began_s is not None:
            if now_s - self.began_s > arrival_s and not self._owes():
                self.refuse(Malformed(f"the request did not arrive within {arrival_s:g} s: send it faster"))
        elif self.idle_s is not None and now_s - self.idle_s > idle_s and not self._owes():
            leave(self)

    def _stalled(self, now_s: float) -> bool:
        """Whether nothing of what waits to be sent was taken for too long."""
        size = self.transport.get_write_buffer_size()
        before, since_s = self._unsent
        if size == 0 or before == 0 or abs(size - before) >= _STEP_BYTES:
            self._unsent = (size, now_s)
            return False
        return now_s - since_s > self._stalled_s

    def reject(self, error: TautError) -> None:
        """Refuse from within the parser, which has no more to do."""
        self.refuse(error)
        raise Stop

    def refuse(self, error: TautError) -> None:
        """Answer in place of the request that is arriving, after those before it, and close."""
        if self.transport.is_closing() or self._over_s is not None:
            return
        if self._owes():
            self._complaint = self._complaint or error
            self.flow.pause_reading()
            return
        cycle = self.cycle
        if not self.answered():
            cycle.response_complete = cycle.disconnected = True
            cycle.message_event.set()
        elif self._in_body and cycle is not None and cycle.more_body:  # type: ignore[redundant-expr]  # as in `answered`
            self.end()  # it was answered before it was whole, and what is wrong with its rest is worth no second answer
            return
        self.transport.write(self.refusal(error))
        self.end()

    def end(self) -> None:
        """Close in a moment: at once, with bytes unread, would reset the connection, and what was said be lost."""
        if self.transport.is_closing():
            return
        if self._crowd.full or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._over_s = self._time()
        self._held = b""
        self.transport.write_eof()
        self.flow.resume_reading()


async def sweep(connections: Collection[Any], *, arrival_s: float, idle_s: float) -> None:
    """End connections whose time has come, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_S)
        now_s = loop.time()
        for connection in [one for one in connections if isinstance(one, BoundedProtocol)]:
            connection.expire(now_s, arrival_s=arrival_s, idle_s=idle_s)
