"""uvicorn's servers as control needs them: without signals of their own, and one whose TLS is swapped under it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

import uvicorn

from taut.trust.svid.tls import PartTls

_HANDSHAKE_S: Final = 10.0
_GOODBYE_S: Final = 5.0
_LINGER_S: Final = 0.3


class Shown(Protocol):
    """What a server shows, and whom it lets speak: see `LiveTls` and `PartTls`."""

    @property
    def context(self) -> ssl.SSLContext: ...
    @property
    def mutual(self) -> bool: ...
    def peer_until_s(self, connection: ssl.SSLObject) -> float: ...


class Door(NamedTuple):
    """Where machines speak to control, and by which identity it answers."""

    listener: socket.socket
    tls: PartTls


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to us: two of them share this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class TlsServer(QuietServer):
    """A server that speaks TLS, with bounds on handshakes and goodbyes that uvicorn does not pass on.

    live: what it shows, asked anew at each handshake, which may take `handshake_s`.
    """

    def __init__(self, config: uvicorn.Config, live: Shown, *, handshake_s: float = _HANDSHAKE_S) -> None:
        super().__init__(config)
        self._handshake_s: Final = handshake_s
        self._live: Final = live

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._protocol, sock=found, backlog=self.config.backlog, ssl=self._live.context,
                ssl_handshake_timeout=self._handshake_s, ssl_shutdown_timeout=_GOODBYE_S,
            )
            for found in sockets or []
        ]  # fmt: skip
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # each second, as a certificate runs out without anybody saying so
            self.judge_peers()
        return await super().on_tick(counter)

    def judge_peers(self) -> None:
        """Let go of clients that would not be admitted any more: at once, or after the answer that is under way."""
        if not self._live.mutual:
            return
        now_s = time.time()
        for connection in self._connections():
            shown = connection.transport.get_extra_info("ssl_object")
            if shown is not None and self._live.peer_until_s(shown) < now_s:
                _let_go(connection)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        idle = [connection for connection in self._connections() if _is_idle(connection)]
        asyncio.get_running_loop().call_later(_LINGER_S, _abort, idle)  # an idle client may never say goodbye
        await super().shutdown(sockets)

    def _connections(self) -> list[Any]:
        return list(self.server_state.connections)


def _is_idle(connection: Any) -> bool:
    return connection.cycle is None or connection.cycle.response_complete


def _let_go(connection: Any) -> None:
    if _is_idle(connection):
        connection.transport.abort()
    else:
        connection.shutdown()


def _abort(connections: Sequence[Any]) -> None:
    for connection in connections:
        connection.transport.abort()
