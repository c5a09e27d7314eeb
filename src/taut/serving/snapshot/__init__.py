"""Serving snapshots: all that a gateway works from, signed, pushed by control, and kept on disk for when it is dead."""

from taut.serving.snapshot.model import (
    ArmConfig,
    Audit,
    CacheConfig,
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
    TrialConfig,
    open_snapshot,
    sign_snapshot,
)
from taut.serving.snapshot.publisher import GatewayState, Heard, MachineState, Publisher
from taut.serving.snapshot.store import SnapshotStore, TrustFile
from taut.serving.snapshot.subscriber import Say, Subscriber, Talk
from taut.serving.snapshot.wire import Ack, Beat, Hello

__all__ = [
    "Ack",
    "ArmConfig",
    "Audit",
    "Beat",
    "CacheConfig",
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
    "TrialConfig",
    "TrustFile",
    "open_snapshot",
    "sign_snapshot",
]
