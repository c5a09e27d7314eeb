"""uvicorn's HTTP protocol with the bounds that it lacks, and one write an answer.

Added: a bound on header bytes, a bound on the time that a request may take to arrive (headers and body together), and
errors of the parser in the data plane's shape.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from taut.core.errors import TautError
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway.core import Gateway
from taut.serving.gateway.replies import STATUS_LINES, Reply

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 128
MAX_PIPELINED: Final = 64


class Cycle(RequestResponseCycle):
    """One request; `reply` writes status, headers and body at once."""

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
    """One connection. `began_s` is when the request that is arriving began to, None while none is."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        gateway: Gateway,
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gateway: Final = gateway
        self._header_bytes = 0
        self.began_s: float | None = None
        self.draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.began_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self.began_s is not None and self._header_bytes >= 0:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(
                TooLarge(f"the headers are larger than {MAX_HEADER_BYTES} bytes: send fewer or shorter ones")
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.began_s = self.loop.time()
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        self._header_bytes = -1  # counted out; the body has a bound of its own
        if len(self.headers) > MAX_HEADERS:
            self._refuse(TooLarge(f"the request has more than {MAX_HEADERS} headers: send fewer"))
            return
        parser = self.parser
        scope = self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        path, _, query = self.url.partition(b"?")
        scope["path"] = path.decode("latin-1")
        scope["raw_path"] = path
        scope["query_string"] = query
        existing = self.cycle
        cycle = self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and not self.draining and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {"taut.reply": cycle.reply}  # type: ignore[dict-item]  # ASGI leaves what is in an extension to its maker
        if existing is None or existing.response_complete:  # type: ignore[redundant-expr]  # None before the first request
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) > MAX_PIPELINED:
                self.transport.close()

    def on_message_complete(self) -> None:
        self.began_s = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Malformed(f"{msg.rstrip('.')}: mend the client"))

    def expire(self, now_s: float, timeout_s: float) -> None:
        """End the connection when its request takes too long to arrive."""
        if self.began_s is not None and now_s - self.began_s > timeout_s:
            self._refuse(Malformed(f"the request did not arrive within {timeout_s:g} s: send it faster"))

    def _refuse(self, error: TautError) -> None:
        """Answer where no answer has begun, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]  # None before the first request
            reply = self._gateway.refuse(error, close=True)
            self.transport.write(render(reply, keep_alive=False, with_body=True))
        self.transport.close()
