"""Serving on an inherited socket, and the drain: stop accepting, `connection: close`, wait, close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from taut.serving.gateway.asgi import MAX_ARRIVING_BYTES, AsgiApp
from taut.serving.gateway.bounded import ARRIVAL_S, IDLE_S, sweep
from taut.serving.gateway.crowd import MAX_CONNECTIONS, Crowd
from taut.serving.gateway.protocol import GatewayProtocol
from taut.serving.gateway.replies import STALLED_S, Answering
from taut.serving.tasks import end_task

if TYPE_CHECKING:
    from taut.trust.tls import LiveTls

_LINGER_S: Final = 0.3
_HANDSHAKE_S: Final = 10.0
_GOODBYE_S: Final = 10.0
"""For a client that reads slowly what was sent last, and then says goodbye as TLS wants it."""


class GatewayServer:
    """One gateway on one listening socket, which other processes may share.

    tls: what the socket speaks; without it, plain HTTP. inner: a Unix socket that speaks plain HTTP all the same.
    handshake_timeout_s: how long TLS may take to begin. arrival_timeout_s: how long a request may take to arrive.
    idle_timeout_s: how long a connection may be idle.
    stalled_s: how long a reader may take nothing of an answer. max_connections: beyond it idle ones are closed, or new ones
    refused. max_arriving_bytes: of all bodies together that arrive in pieces.
    """

    def __init__(
        self,
        gateway: Answering,
        listener: socket.socket,
        *,
        tls: LiveTls | None = None,
        inner: socket.socket | None = None,
        handshake_timeout_s: float = _HANDSHAKE_S,
        arrival_timeout_s: float = ARRIVAL_S,
        idle_timeout_s: float = IDLE_S,
        stalled_s: float = STALLED_S,
        max_connections: int = MAX_CONNECTIONS,
        max_arriving_bytes: int = MAX_ARRIVING_BYTES,
        backlog: int = 2048,
    ) -> None:
        self._gateway: Final = gateway
        self._stalled_s: Final = stalled_s
        self._listener: Final = listener
        self._tls: Final = tls
        self._inner: Final = inner
        self._handshake_timeout_s: Final = handshake_timeout_s
        self._arrival_timeout_s: Final = arrival_timeout_s
        self._idle_timeout_s: Final = idle_timeout_s
        self._config: Final = Config(
            AsgiApp(gateway, stalled_s=stalled_s, max_arriving_bytes=max_arriving_bytes), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, backlog=backlog, log_level="error",
            proxy_headers=False,
        )  # fmt: skip
        self._state: Final = ServerState()
        self._crowd: Final = Crowd(self._state.connections, bound=max_connections)
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._config.load()
        loop = asyncio.get_running_loop()
        peer_until_s = self._tls.peer_until_s if self._tls is not None and self._tls.judges else None

        def protocol() -> GatewayProtocol:
            app_state: dict[str, Any] = {}
            return GatewayProtocol(
                self._config,
                self._state,
                app_state,
                gateway=self._gateway,
                crowd=self._crowd,
                stalled_s=self._stalled_s,
                peer_until_s=peer_until_s,
                _loop=loop,
            )

        backlog = self._config.backlog
        if self._tls is None:
            self._servers.append(await loop.create_server(protocol, sock=self._listener, backlog=backlog))
        else:
            self._servers.append(
                await loop.create_server(
                    protocol, sock=self._listener, backlog=backlog, ssl=self._tls.context,
                    ssl_handshake_timeout=self._handshake_timeout_s, ssl_shutdown_timeout=_GOODBYE_S,
                )
            )  # fmt: skip
        if self._inner is not None:
            self._servers.append(await loop.create_unix_server(protocol, sock=self._inner, backlog=backlog))
        self._sweeper = asyncio.create_task(
            sweep(self._state.connections, arrival_s=self._arrival_timeout_s, idle_s=self._idle_timeout_s)
        )

    async def drain(self, *, timeout_s: float) -> bool:
        """Stop accepting, finish what is under way, close. Return whether all of it ended in time.

        Each connection is told `connection: close` with its next answer. Idle ones get a short time for a request that
        may already be on its way, since closing under it would lose it.
        """
        assert self._servers, "drain() before start()"
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            await end_task(self._sweeper)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._crowd.leaving = True
        for connection in self._connections():
            connection.draining = True
        linger = min(loop.time() + _LINGER_S, deadline)
        # over TLS a connection that was accepted may still be in its handshake
        while (self._state.connections or self._tls is not None) and loop.time() < linger:
            await asyncio.sleep(0.01)
        idle = [connection for connection in self._connections() if connection.idle]
        for connection in self._connections():
            connection.shutdown()  # closes idle ones, and lets the others answer first
        if self._tls is not None:  # an idle client may never say goodbye
            loop.call_later(_LINGER_S, _abort, idle)
        while (self._state.connections or self._state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        finished = not self._state.connections and not self._state.tasks
        _abort(self._connections())
        return finished

    def judge_peers(self) -> None:
        """Let go of clients that would not be admitted any more, before another request of theirs is answered.

        Called after the clients' authorities changed. What is under way for them is finished.
        """
        for connection in self._connections():
            connection.judge_peer()

    def _connections(self) -> list[GatewayProtocol]:
        return [
            connection for connection in self._state.connections if isinstance(connection, GatewayProtocol)
        ]


def _abort(connections: Sequence[GatewayProtocol]) -> None:
    for connection in connections:
        connection.transport.abort()
