"""The Open Inference Protocol over gRPC: a skin over the gateways' REST face, with no guard of its own to forget."""

from taut.serving.rpc.secure import RpcTls
from taut.serving.rpc.service import MAX_CONNECTIONS, RpcServer, Service
from taut.serving.upstream import Upstream

__all__ = ["MAX_CONNECTIONS", "RpcServer", "RpcTls", "Service", "Upstream"]
