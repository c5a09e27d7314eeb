"""The raw ASGI callable: bodies read within bounds, and answered by the core."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from taut.core.errors import Unavailable
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway.replies import STALLED_S, Answering, Reply, Stream

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


MAX_ARRIVING_BYTES: Final = 256 * 2**20


class AsgiApp:
    """What uvicorn, or any ASGI server, runs. Time-outs of slow senders are the server's (see `protocol`).

    max_arriving_bytes: of all bodies together that arrive in pieces.
    """

    def __init__(
        self,
        gateway: Answering,
        *,
        stalled_s: float = STALLED_S,
        max_arriving_bytes: int = MAX_ARRIVING_BYTES,
    ) -> None:
        self._gateway: Final = gateway
        self._stalled_s: Final = stalled_s
        self._max_arriving_bytes: Final = max_arriving_bytes
        self._arriving_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        event = await receive()
        body: bytes = event.get("body", b"")
        reply: Reply | None = None
        if event.get("more_body") or len(body) > self._gateway.max_body_bytes:
            body, reply = await self._rest(scope, receive, event)
        if reply is None:
            found = self._gateway.answer(scope["method"], scope["path"], scope["headers"], body)
            reply = found if type(found) is Reply else await found  # type: ignore[misc]  # narrowed by the comparison
        extensions = scope.get("extensions", {})
        if reply.stream is not None:
            gone, cut = extensions.get("taut.gone", _never), extensions.get("taut.cut", _never)
            await self._send_parts(reply, reply.stream, send, gone, cut)
            return
        direct = extensions.get("taut.reply")
        if direct is not None:
            await direct(reply)
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.header_list()})
        await send({"type": "http.response.body", "body": reply.body})

    async def _send_parts(
        self, reply: Reply, parts: Stream, send: Send, gone: Callable[[], bool], cut: Callable[[], object]
    ) -> None:
        """Send an answer whose parts follow as they are ready, until the caller is gone, or takes nothing any more."""
        try:
            await send(
                {"type": "http.response.start", "status": reply.status, "headers": reply.header_list()}
            )
            await send({"type": "http.response.body", "body": reply.body, "more_body": True})
            async for part in parts:
                if gone():
                    return
                async with asyncio.timeout(self._stalled_s):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            async with asyncio.timeout(self._stalled_s):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            cut()
        finally:
            parts.close()

    async def _rest(
        self, scope: Scope, receive: Receive, event: MutableMapping[str, Any]
    ) -> tuple[bytes, Reply | None]:
        """Read the rest of a body that came in pieces; a refusal when nobody may send it, it is too large or was cut off."""
        stranger = self._gateway.turn_away(scope["method"], scope["path"], scope["headers"])
        if stranger is not None:
            return b"", stranger
        bound = self._gateway.max_body_bytes
        too_large = TooLarge(f"the body is larger than {bound} bytes: send fewer rows at once")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > bound:
            return b"", self._gateway.refuse(too_large, close=True)
        parts, size = [event.get("body", b"")], len(event.get("body", b""))
        self._arriving_bytes += size
        try:
            while event.get("more_body"):
                if size > bound:
                    return b"", self._gateway.refuse(too_large, close=True)
                if self._arriving_bytes > self._max_arriving_bytes:
                    full = Unavailable("too many large requests are arriving at once: send it again shortly")
                    return b"", self._gateway.refuse(full, close=True)
                event = await receive()
                if event["type"] == "http.disconnect":
                    gone = Malformed("the connection ended before the body did")
                    return b"", self._gateway.refuse(gone, close=True)
                part = event.get("body", b"")
                parts.append(part)
                size += len(part)
                self._arriving_bytes += len(part)
        finally:
            self._arriving_bytes -= size
        if size > bound:
            return b"", self._gateway.refuse(too_large, close=True)
        return b"".join(parts), None

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})
            return
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return


def _never() -> bool:
    return False
