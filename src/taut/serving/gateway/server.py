"""Serving on an inherited socket, and the drain: stop accepting, `connection: close`, wait, close."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from taut.serving.gateway.asgi import MAX_ARRIVING_BYTES, AsgiApp
from taut.serving.gateway.bounded import ARRIVAL_S, IDLE_S, sweep
from taut.serving.gateway.crowd import MAX_CONNECTIONS, Crowd
from taut.serving.gateway.protocol import GatewayProtocol
from taut.serving.gateway.replies import STALLED_S, Answering

_LINGER_S: Final = 0.3


class GatewayServer:
    """One gateway on one listening socket, which other processes may share.

    arrival_timeout_s: how long a request may take to arrive. idle_timeout_s: how long a connection may be idle.
    stalled_s: how long a reader may take nothing of an answer. max_connections: beyond it idle ones are closed, or new ones
    refused. max_arriving_bytes: of all bodies together that arrive in pieces.
    """

    def __init__(
        self,
        gateway: Answering,
        listener: socket.socket,
        *,
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
        self._arrival_timeout_s: Final = arrival_timeout_s
        self._idle_timeout_s: Final = idle_timeout_s
        self._config: Final = Config(
            AsgiApp(gateway, stalled_s=stalled_s, max_arriving_bytes=max_arriving_bytes), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, backlog=backlog, log_level="error",
            proxy_headers=False,
        )  # fmt: skip
        self._state: Final = ServerState()
        self._crowd: Final = Crowd(self._state.connections, bound=max_connections)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._config.load()
        loop = asyncio.get_running_loop()

        def protocol() -> GatewayProtocol:
            app_state: dict[str, Any] = {}
            return GatewayProtocol(
                self._config,
                self._state,
                app_state,
                gateway=self._gateway,
                crowd=self._crowd,
                stalled_s=self._stalled_s,
                _loop=loop,
            )

        self._server = await loop.create_server(protocol, sock=self._listener, backlog=self._config.backlog)
        self._sweeper = asyncio.create_task(
            sweep(self._state.connections, arrival_s=self._arrival_timeout_s, idle_s=self._idle_timeout_s)
        )

    async def drain(self, *, timeout_s: float) -> bool:
        """Stop accepting, finish what is under way, close. Return whether all of it ended in time.

        Each connection is told `connection: close` with its next answer. Idle ones get a short time for a request that
        may already be on its way, since closing under it would lose it.
        """
        assert self._server is not None, "drain() before start()"
        self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        for connection in self._connections():
            connection.draining = True
        linger = min(loop.time() + _LINGER_S, deadline)
        while self._state.connections and loop.time() < linger:
            await asyncio.sleep(0.01)
        for connection in self._connections():
            connection.shutdown()  # closes idle ones, and lets the others answer first
        while (self._state.connections or self._state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        finished = not self._state.connections and not self._state.tasks
        for connection in self._connections():
            connection.transport.abort()
        return finished

    def _connections(self) -> list[GatewayProtocol]:
        return [
            connection for connection in self._state.connections if isinstance(connection, GatewayProtocol)
        ]
