"""Headers that every answer of control carries, so that a browser believes no more of it than it says.

Source: OWASP HTTP Security Response Headers Cheat Sheet.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class AnswerHeaders:
    """Adds to each answer those of the headers that it does not have itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                message = {**message, "headers": [*headers, *(one for one in _ALWAYS if one[0] not in there)]}
            await send(message)

        await self._app(scope, receive, sending)
