"""uvicorn's HTTP protocol, with the bounds that it lacks and a short way for requests that arrive whole.

A request whose body is there when its headers are is answered at once, without a task; everything else (slow bodies,
pipelining behind an answer that is not ready, `Expect: 100-continue`) goes through the ASGI callable as uvicorn does it.
The bounds are `BoundedProtocol`'s.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from taut.core.errors import TautError
from taut.serving.errors import TooLarge
from taut.serving.gateway.crowd import Crowd
from taut.serving.gateway.cycles import Cycle, Late, render, render_head
from taut.serving.gateway.judged import JudgedProtocol, PeerUntil
from taut.serving.gateway.replies import Answering, Pending, Reply, Stream

_AT_ONCE: Final = 8  # requests of one read that are answered before others get their turn


class GatewayProtocol(JudgedProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        gateway: Answering,
        crowd: Crowd,
        stalled_s: float,
        peer_until_s: PeerUntil | None = None,
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            config, server_state, app_state, crowd=crowd, stalled_s=stalled_s, peer_until_s=peer_until_s, _loop=_loop
        )  # fmt: skip
        self._gateway: Final = gateway
        self._waiting = False  # headers are read, and what becomes of the request is not yet decided
        self._parts: list[bytes] = []
        self._at_once = 0

    def refusal(self, error: TautError) -> bytes:
        self._waiting = False
        return render(self._gateway.refuse(error, close=True), keep_alive=False, with_body=True)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parts = []

    def on_headers_complete(self) -> None:
        self.head_complete()
        self._waiting = True
        if self._busy() or self._at_once >= _AT_ONCE:
            self._take_long_way()

    def read_through(self) -> None:
        self._at_once = 0
        if self._waiting:
            self._take_long_way()

    def on_body(self, body: bytes) -> None:
        if self._waiting:
            self._read_bytes = 0
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.message_complete()
        if not self._waiting:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._waiting = False
            self._at_once += 1
            self._answer_at_once()

    def _busy(self) -> bool:
        """Whether an earlier request of this connection is still without its answer, or the other side does not read."""
        return self.flow.write_paused or not self.answered()

    # the short way

    def _answer_at_once(self) -> None:
        method, path, _ = self._target()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        gateway = self._gateway
        if len(body) > gateway.max_body_bytes:
            bound = gateway.max_body_bytes
            found: Any = gateway.refuse(
                TooLarge(f"the body is larger than {bound} bytes: send fewer rows at once"), close=True
            )
        else:
            found = gateway.answer(method, path, self.sent, body)
        keep_alive = self.parser.should_keep_alive() and self.version != "1.0" and not self.draining
        if type(found) is not Reply:
            self._wait_for(found, keep_alive=keep_alive, with_body=method != "HEAD")
            return
        if found.close:
            keep_alive = False
        self.transport.write(render(found, keep_alive=keep_alive, with_body=method != "HEAD"))
        self.server_state.total_requests += 1
        if keep_alive:
            self.idle_s = self.loop.time()
        else:
            self.transport.close()

    def _wait_for(self, pending: Pending, *, keep_alive: bool, with_body: bool) -> None:
        """Answer once `pending` is done; when the caller hangs up before, it is cancelled and frees what it holds."""
        late = Late(keep_alive=keep_alive)
        self.cycle = late  # type: ignore[assignment]  # it has what uvicorn asks of a cycle
        task = self.loop.create_task(self._answer_late(late, pending, with_body=with_body))
        late.cancel = task.cancel
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer_late(self, late: Late, pending: Pending, *, with_body: bool) -> None:
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

    async def _send_parts(self, late: Late, reply: Reply, parts: Stream) -> None:
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
        keep_alive = self.version != "1.0" and not self.draining and self.parser.should_keep_alive()
        before_done = self.answered()
        self._open_cycle(b"".join(self._parts), keep_alive=keep_alive)
        if before_done:
            self._start_asgi_task(self.cycle, self.app)
            return
        self.pipeline.appendleft((self.cycle, self.app))
        self.owing()

    def _open_cycle(self, body: bytes, *, keep_alive: bool) -> None:
        method, path, query = self._target()
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": self.version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": "",
            "headers": self.sent,
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
        cycle.end = self.end
        self.scope["extensions"] = {"taut.reply": cycle.reply, "taut.gone": cycle.gone, "taut.cut": cycle.cut}  # type: ignore[dict-item]  # ASGI leaves what is in an extension to its maker
        cycle.body += body
        if body:
            cycle.message_event.set()
