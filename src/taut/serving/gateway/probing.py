"""A question to a gateway through its own HTTP, over a connection that nobody else can have."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from taut.core.errors import Unavailable
from taut.serving.gateway.asgi import AsgiApp
from taut.serving.gateway.crowd import Crowd
from taut.serving.gateway.protocol import GatewayProtocol
from taut.serving.gateway.replies import STALLED_S, Answering

_ANSWER_BYTES: Final = 2**20
_TIMEOUT_S: Final = 5.0


async def ask(
    gateway: Answering, method: str, path: str, *, bearer: str = "", body: bytes = b""
) -> tuple[int, bytes]:
    """Return (status, body) of an answer, by the protocol and the guard that every request meets.

    The connection is a pair of sockets: no door is opened for it. Raises Unavailable where no answer comes.
    """
    headers = [("host", "probe"), ("connection", "close"), ("content-length", str(len(body)))]
    if bearer:
        headers.append(("authorization", f"Bearer {bearer}"))
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    try:
        theirs.setblocking(False)
        await loop.connect_accepted_socket(lambda: _protocol(gateway, loop), theirs)
        async with asyncio.timeout(_TIMEOUT_S):
            return await _exchange(ours, _request(method, path, headers) + body)
    except (TimeoutError, OSError, ValueError, IndexError) as error:
        raise Unavailable(f"a gateway does not answer its own probe of {path}: {error}") from error
    finally:
        ours.close()


def _protocol(gateway: Answering, loop: asyncio.AbstractEventLoop) -> GatewayProtocol:
    config = Config(
        AsgiApp(gateway), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    config.load()
    state = ServerState()
    return GatewayProtocol(
        config, state, {}, gateway=gateway, crowd=Crowd(state.connections, bound=1), stalled_s=STALLED_S, _loop=loop
    )  # fmt: skip


def _request(method: str, path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii")


async def _exchange(ours: socket.socket, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(sock=ours, limit=_ANSWER_BYTES)
    try:
        writer.write(request)
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()
