"""Serving snapshots: all that a gateway works from, signed, pushed by control, and kept on disk for when it is dead."""

from taut.serving.snapshot.model import (
    Audit,
    CacheConfig,
    CanaryConfig,
    DefaultAnswer,
    EndpointConfig,
    GatewaySettings,
    Machine,
    Occasion,
    OtherModel,
    PreviousVersion,
    Runtime,
    ServedModel,
    ServingSnapshot,
    StaleAnswer,
    StandIn,
    open_snapshot,
    sign_snapshot,
)
from taut.serving.snapshot.publisher import GatewayState, Heard, MachineState, Publisher
from taut.serving.snapshot.store import SnapshotStore, TrustFile
from taut.serving.snapshot.subscriber import Say, Subscriber, Talk
from taut.serving.snapshot.wire import Ack, Beat, Hello

__all__ = [
    "Ack",
    "Audit",
    "Beat",
    "CacheConfig",
    "CanaryConfig",
    "DefaultAnswer",
    "EndpointConfig",
    "GatewaySettings",
    "GatewayState",
    "Heard",
    "Hello",
    "Machine",
    "MachineState",
    "Occasion",
    "OtherModel",
    "PreviousVersion",
    "Publisher",
    "Runtime",
    "Say",
    "ServedModel",
    "ServingSnapshot",
    "SnapshotStore",
    "StaleAnswer",
    "StandIn",
    "Subscriber",
    "Talk",
    "TrustFile",
    "open_snapshot",
    "sign_snapshot",
]
