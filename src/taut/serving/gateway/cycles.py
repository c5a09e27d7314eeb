"""One request on its way through a connection: what uvicorn asks of a cycle, for answers of the ASGI app and late ones."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from taut.serving.gateway.replies import STATUS_LINES, Reply


class Cycle(RequestResponseCycle):
    """One request that goes through the ASGI callable; `reply` writes status, headers and body at once.

    end: closes the connection of a caller who may still be sending.
    """

    end: Callable[[], None]

    async def receive(self) -> ASGIReceiveEvent:
        if self.more_body or self.disconnected or self.response_complete:
            return await super().receive()
        body, self.body = bytes(self.body), bytearray()  # it is whole: nothing is read on its account
        return {"type": "http.request", "body": body, "more_body": False}

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
        if reply.close and self.more_body:
            self.end()
        elif not self.keep_alive:
            self.transport.close()
        self.on_response()


def render_head(reply: Reply) -> bytes:
    """Return the head of an answer whose body ends with the connection."""
    return b"%b%bconnection: close\r\n\r\n%b" % (STATUS_LINES[reply.status], reply.head, reply.body)


def render(reply: Reply, *, keep_alive: bool, with_body: bool) -> bytes:
    """Return an answer as it goes over the wire."""
    return b"".join(
        (
            STATUS_LINES[reply.status],
            reply.head,
            f"content-length: {len(reply.body)}\r\n".encode(),
            b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
            reply.body if with_body else b"",
        )
    )


class Late:
    """An answer that takes waiting, in the place of uvicorn's cycle: what it asks of one, and no more."""

    __slots__ = ("body", "cancel", "disconnected", "keep_alive", "more_body", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self.body = b""
        self.more_body = False
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.cancel: Callable[[], object] = nothing

    @property
    def message_event(self) -> Late:
        return self

    def set(self) -> None:
        """Hear, in the place of uvicorn's event, that something came: a hang-up, while the answer is not there."""
        if self.disconnected:
            self.cancel()


def nothing() -> None:
    pass
