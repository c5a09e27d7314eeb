"""Control's connections, within the bounds that the data plane's have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from taut.core.errors import TautError
from taut.entrypoints import errors
from taut.entrypoints.peers import PartProtocol, PeerProtocol
from taut.serving.gateway.bounded import BoundedProtocol
from taut.serving.gateway.crowd import Crowd
from taut.serving.gateway.cycles import render
from taut.serving.gateway.replies import Reply

MAX_CONNECTIONS: Final = 512
ARRIVAL_S: Final = 60.0  # bodies are larger than those of the data plane
IDLE_S: Final = 75.0
STALLED_S: Final = 60.0


class ControlProtocol(BoundedProtocol):
    """uvicorn's protocol with bounds. new_id: makes the ids of refusals. max_connections: of one server."""

    new_id: ClassVar[Callable[[str], str]]
    max_connections: ClassVar[int] = MAX_CONNECTIONS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(
            config,
            server_state,
            app_state,
            crowd=Crowd(server_state.connections, bound=self.max_connections),
            stalled_s=STALLED_S,
            _loop=_loop or asyncio.get_running_loop(),
        )

    def refusal(self, error: TautError) -> bytes:
        wait = errors.retry_after(error)
        head = b"content-type: application/json\r\n"
        if wait is not None:
            head += b"retry-after: %b\r\n" % wait.encode()
        body = msgspec.json.encode(errors.document(error.code, error.message, type(self).new_id("req")))
        return render(Reply(errors.status_of(error), head, body), keep_alive=False, with_body=True)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        HttpToolsProtocol.on_message_begin(self)

    def on_headers_complete(self) -> None:
        self.head_complete()
        HttpToolsProtocol.on_headers_complete(self)
        if self.pipeline:
            self.owing()

    def on_message_complete(self) -> None:
        self.message_complete()
        super().on_message_complete()


def protocols(
    new_id: Callable[[str], str], *, max_connections: int = MAX_CONNECTIONS
) -> tuple[type[ControlProtocol], type[ControlProtocol], type[ControlProtocol]]:
    """Return the protocols of control's port, of the installation's own socket, and of the machines' door."""
    members = {"new_id": staticmethod(new_id), "max_connections": max_connections}
    outer = type("OuterProtocol", (ControlProtocol,), members)
    inner = type("InnerProtocol", (PeerProtocol, ControlProtocol), members)
    return outer, inner, type("DoorProtocol", (PartProtocol, ControlProtocol), members)
