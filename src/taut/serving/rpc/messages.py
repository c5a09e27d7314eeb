"""The messages of the gRPC services, made from their descriptors at run time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from taut.serving.errors import Malformed

INFERENCE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"


class Messages:
    """Classes of messages by name, in a pool of their own: a program may hold another client's `inference` package."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(
            Path(__file__).with_name("protos.binpb").read_bytes()
        )
        for file in files.file:
            pool.Add(file)
        self._classes: Final[dict[str, Any]] = {
            message.name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            )
            for file in files.file
            for message in file.message_type
        }

    def __getitem__(self, name: str) -> Any:
        return self._classes[name]

    def parse(self, name: str, data: bytes) -> Any:
        """Return the message of the bytes. Raises Malformed where they are none."""
        try:
            return self._classes[name].FromString(data)
        except DecodeError:
            raise Malformed(f"the message is no {name}: mend the client") from None
