"""The gateway: guarded answers over HTTP, from the last signed snapshot, whether control lives or not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taut.serving.gateway.admitted import Admitted, Leave
    from taut.serving.gateway.asgi import AsgiApp
    from taut.serving.gateway.compiled import Active, compile_snapshot
    from taut.serving.gateway.core import Gateway
    from taut.serving.gateway.crowd import connections_within
    from taut.serving.gateway.feature_probe import FeatureProbe
    from taut.serving.gateway.node import GatewayNode
    from taut.serving.gateway.replies import Reply
    from taut.serving.gateway.server import GatewayServer
    from taut.serving.gateway.ticket import World

__all__ = [
    "Active",
    "Admitted",
    "AsgiApp",
    "FeatureProbe",
    "Gateway",
    "GatewayNode",
    "GatewayServer",
    "Leave",
    "Reply",
    "World",
    "compile_snapshot",
    "connections_within",
]

_HOMES: Final = {
    "Active": "compiled",
    "Admitted": "admitted",
    "AsgiApp": "asgi",
    "FeatureProbe": "feature_probe",
    "Gateway": "core",
    "GatewayNode": "node",
    "GatewayServer": "server",
    "Leave": "admitted",
    "Reply": "replies",
    "World": "ticket",
    "compile_snapshot": "compiled",
    "connections_within": "crowd",
}


def __getattr__(name: str) -> object:
    """Import a name of the face on its use (PEP 562): the edge runner has the decoders and the server of this room, and
    nothing on its device of what the gateway itself needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
