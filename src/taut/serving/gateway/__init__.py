"""The gateway: guarded answers over HTTP, from the last signed snapshot, whether control lives or not."""

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
    "AsgiApp",
    "FeatureProbe",
    "Gateway",
    "GatewayNode",
    "GatewayServer",
    "Reply",
    "World",
    "compile_snapshot",
    "connections_within",
]
