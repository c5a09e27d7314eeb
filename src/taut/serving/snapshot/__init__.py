"""Serving snapshots: all that a gateway works from, signed, pushed by control, and kept on disk for when it is dead."""

from taut.serving.snapshot.model import (
    Audit,
    EndpointConfig,
    GatewaySettings,
    Runtime,
    ServedModel,
    ServingSnapshot,
    open_snapshot,
    sign_snapshot,
)
from taut.serving.snapshot.publisher import GatewayState, Publisher
from taut.serving.snapshot.store import SnapshotStore, TrustFile
from taut.serving.snapshot.subscriber import Subscriber
from taut.serving.snapshot.wire import Ack, Beat, Hello

__all__ = [
    "Ack",
    "Audit",
    "Beat",
    "EndpointConfig",
    "GatewaySettings",
    "GatewayState",
    "Hello",
    "Publisher",
    "Runtime",
    "ServedModel",
    "ServingSnapshot",
    "SnapshotStore",
    "Subscriber",
    "TrustFile",
    "open_snapshot",
    "sign_snapshot",
]
