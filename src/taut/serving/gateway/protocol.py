"""uvicorn's HTTP protocol, with the bounds that it lacks and a short way for requests that arrive whole.

A request whose body is there when its headers are is answered at once, without a task; everything else (slow bodies,
pipelining behind an answer that is not ready, `Expect: 100-continue`) goes through the ASGI callable as uvicorn does it.
Added bounds: bytes and number of headers, the time that a request may take to arrive, idle time, pipelined requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from taut.core.errors import TautError
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway.core import Gateway, Pending
from taut.serving.gateway.replies import STATUS_LINES, Reply, Stream

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
MAX_PIPELINED: Final = 64
_AT_ONCE: Final = 8  # requests of one read that are answered before others get their turn


class Cycle(RequestResponseCycle):
    """One request that goes through the ASGI callable; `reply` writes status, headers and body at once."""

    def gone(self) -> bool:
        return self.disconnected

    def cut(self) -> None:
        """End the connection without what was written and not read."""
        self.disconnected = True
        self.transport.abort()

    async def reply(self, reply: Reply) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if reply.close:
            self.keep_alive = False
        self.transport.write(
            render(reply, keep_alive=self.keep_alive, with_body=self.scope["method"] != "HEAD")
        )
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def render_head(reply: Reply) -> bytes:
    """Return the head of an answer whose body ends with the connection."""
    return b"%b%bconnection: close\r\n\r\n%b" % (STATUS_LINES[reply.status], reply.head, reply.body)


def render(reply: Reply, *, keep_alive: bool, with_body: bool) -> bytes:
    """Return an answer as it goes over the wire."""
    return b"%b%bcontent-length: %d\r\n%b\r\n%b" % (
        STATUS_LINES[reply.status],
        reply.head,
        len(reply.body),
        b"" if keep_alive else b"connection: close\r\n",
        reply.body if with_body else b"",
    )


class GatewayProtocol(HttpToolsProtocol):
    """One connection.

    began_s: when the request that is arriving began to, None while none is. idle_s: when the last answer left.
    draining: set by the server; every answer from then on closes the connection.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        gateway: Gateway,
        stalled_s: float,
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gateway: Final = gateway
        self._stalled_s: Final = stalled_s
        self._time: Final = _loop.time
        self._header_bytes = 0
        self._waiting = False  # headers are read, and what becomes of the request is not yet decided
        self._parts: list[bytes] = []
        self._at_once = 0
        self.began_s: float | None = None
        self.idle_s: float | None = None
        self.draining = False

    # what arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.began_s = self._time()

    def data_received(self, data: bytes) -> None:
        if self.began_s is not None and self._header_bytes >= 0:
            self._header_bytes += len(data)
        self._at_once = 0
        super().data_received(data)
        if self._waiting:
            self._take_long_way()
        elif self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(
                TooLarge(f"the headers are larger than {MAX_HEADER_BYTES} bytes: send fewer or shorter ones")
            )

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._parts = []
        self.began_s = self._time()
        self.idle_s = None
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        self._header_bytes = -1  # counted out; the body has a bound of its own
        self._waiting = True
        if len(self.headers) > MAX_HEADERS:
            self._refuse(TooLarge(f"the request has more than {MAX_HEADERS} headers: send fewer"))
        elif self._busy() or self._at_once >= _AT_ONCE:
            self._take_long_way()

    def on_body(self, body: bytes) -> None:
        if self._waiting:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.began_s = None
        if not self._waiting:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._waiting = False
            self._at_once += 1
            self._answer_at_once()

    def _busy(self) -> bool:
        """Whether an earlier request of this connection is still without its answer, or the other side does not read."""
        return self.flow.write_paused or not self._answered()

    # the short way

    def _answer_at_once(self) -> None:
        parser = self.parser
        method, path, _ = self._target()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        gateway = self._gateway
        if len(body) > gateway.max_body_bytes:
            bound = gateway.max_body_bytes
            found: Any = gateway.refuse(
                TooLarge(f"the body is larger than {bound} bytes: send fewer rows at once"), close=True
            )
        else:
            found = gateway.answer(method, path, self.headers, body)
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0" and not self.draining
        if type(found) is not Reply:
            self._wait_for(found, keep_alive=keep_alive, with_body=method != "HEAD")
            return
        if found.close:
            keep_alive = False
        self.transport.write(render(found, keep_alive=keep_alive, with_body=method != "HEAD"))
        self.server_state.total_requests += 1
        if keep_alive:
            self.idle_s = self._time()
        else:
            self.transport.close()

    def _wait_for(self, pending: Pending, *, keep_alive: bool, with_body: bool) -> None:
        """Answer once `pending` is done; when the caller hangs up before, it is cancelled and frees what it holds."""
        late = _Late(keep_alive=keep_alive)
        self.cycle = late  # type: ignore[assignment]  # it has what uvicorn asks of a cycle
        task = self.loop.create_task(self._answer_late(late, pending, with_body=with_body))
        late.cancel = task.cancel
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer_late(self, late: _Late, pending: Pending, *, with_body: bool) -> None:
        reply = await pending
        if reply.stream is not None:
            await self._send_parts(late, reply, reply.stream)
            return
        if self.flow.write_paused and not late.disconnected:
            await self.flow.drain()
        if late.disconnected:
            return
        late.response_complete = True
        keep_alive = late.keep_alive and not reply.close and not self.draining
        self.transport.write(render(reply, keep_alive=keep_alive, with_body=with_body))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    async def _send_parts(self, late: _Late, reply: Reply, parts: Stream) -> None:
        """Send what follows an answer as it is ready, to the end of the connection."""
        try:
            self.transport.write(render_head(reply))
            async for part in parts:
                if self.flow.write_paused:
                    async with asyncio.timeout(self._stalled_s):
                        await self.flow.drain()
                if late.disconnected:
                    return
                self.transport.write(part)
        except TimeoutError:
            self.transport.abort()  # he who does not read would hold the rows for ever
        finally:
            parts.close()
        late.response_complete = True
        self.transport.close()
        self.on_response_complete()

    def _target(self) -> tuple[str, str, bytes]:
        path, _, query = self.url.partition(b"?")
        return self.parser.get_method().decode("ascii"), path.decode("latin-1"), query

    # the long way

    def _take_long_way(self) -> None:
        self._waiting = False
        parser = self.parser
        version = parser.get_http_version()
        keep_alive = version != "1.0" and not self.draining and parser.should_keep_alive()
        before_done = self._answered()
        self._open_cycle(b"".join(self._parts), more_body=True, keep_alive=keep_alive)
        if before_done:
            self._start_asgi_task(self.cycle, self.app)
            return
        self.flow.pause_reading()
        self.pipeline.appendleft((self.cycle, self.app))
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.close()

    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None before the first long way

    def _open_cycle(self, body: bytes, *, more_body: bool, keep_alive: bool) -> None:
        method, path, query = self._target()
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": self.parser.get_http_version(),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": "",
            "headers": self.headers,
            "method": method,
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query,
            "state": {},
            "extensions": {},
        }
        cycle = self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.scope["extensions"] = {"taut.reply": cycle.reply, "taut.gone": cycle.gone, "taut.cut": cycle.cut}  # type: ignore[dict-item]  # ASGI leaves what is in an extension to its maker
        cycle.body += body
        cycle.more_body = more_body
        if body or not more_body:
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # idle time is the sweeper's
        self.idle_s = self._time()

    # bounds

    def send_400_response(self, msg: str) -> None:
        self._refuse(Malformed(f"{msg.rstrip('.')}: mend the client"))

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if it had not asked, and strangers cannot fill a log."""

    def expire(self, now_s: float, *, arrival_s: float, idle_s: float) -> None:
        """End the connection when its request takes too long to arrive, or none comes."""
        if self.began_s is not None and now_s - self.began_s > arrival_s:
            self._refuse(Malformed(f"the request did not arrive within {arrival_s:g} s: send it faster"))
        elif self.idle_s is not None and now_s - self.idle_s > idle_s:
            self.transport.close()

    def _refuse(self, error: TautError) -> None:
        """Answer where no answer has begun, and close."""
        self._waiting = False
        if self.transport.is_closing():
            return
        if self._answered():
            reply = self._gateway.refuse(error, close=True)
            self.transport.write(render(reply, keep_alive=False, with_body=True))
        self.transport.close()


class _Late:
    """An answer that takes waiting, in the place of uvicorn's cycle: what it asks of one, and no more."""

    __slots__ = ("body", "cancel", "disconnected", "keep_alive", "more_body", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self.body = b""
        self.more_body = False
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.cancel: Callable[[], object] = _nothing

    @property
    def message_event(self) -> _Late:
        return self

    def set(self) -> None:
        """Hear, in the place of uvicorn's event, that something came: a hang-up, while the answer is not there."""
        if self.disconnected:
            self.cancel()


def _nothing() -> None:
    pass
