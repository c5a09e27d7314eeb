"""Connections whose client showed a certificate: they last no longer than the trust in it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from taut.serving.gateway.bounded import BoundedProtocol
from taut.serving.gateway.crowd import Crowd

PeerUntil = Callable[[Any], float]
"""Says of a TLS connection until when its client may speak, in seconds since 1970; 0.0 for not at all."""


class JudgedProtocol(BoundedProtocol):
    """One connection. Judged when it is made, when the authorities change, and when its client's certificate ends, so
    that a request costs nothing.

    draining: set by the server; every answer from then on closes the connection. peer_until_s: None where no certificate
    is asked for.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        crowd: Crowd,
        stalled_s: float,
        peer_until_s: PeerUntil | None = None,
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, crowd=crowd, stalled_s=stalled_s, _loop=_loop)
        self._judge: Final = peer_until_s
        self._until_s = math.inf
        self.draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.draining = self._crowd.leaving
        if self._judge is not None:
            self.judge_peer()

    def expire(self, now_s: float, *, arrival_s: float, idle_s: float) -> None:
        if self._judge is not None and self._until_s < time.time():
            self._let_go()
        super().expire(now_s, arrival_s=arrival_s, idle_s=idle_s)

    @property
    def idle(self) -> bool:
        """Whether no answer is due, and none is under way."""
        return self.answered() and not self.pipeline

    def judge_peer(self) -> None:
        """Ask whether the client may speak, and end the connection where it may not. Nothing without certificates."""
        shown = None if self._judge is None else self.transport.get_extra_info("ssl_object")
        if self._judge is not None and shown is not None:
            self._until_s = self._judge(shown)
            if not self._until_s:
                self._let_go()

    def _let_go(self) -> None:
        """End the connection at once, or after the answer that is under way; what waits behind that one gets none."""
        self.draining = True
        self.pipeline.clear()
        if self.idle:
            self.transport.abort()
        else:
            self.shutdown()
