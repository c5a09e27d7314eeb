"""TLS before gRPC: the library's own, handed the newest certificate at each handshake, and asked again at each call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import grpc

from taut.trust.tls import LiveTls, is_trusted, peer_of_pem

_KNOWN_MAX: Final = 4096


class RpcTls:
    """What gRPC needs of a server's TLS. New connections get what is served now; tickets end with what issued them."""

    def __init__(self, live: LiveTls, *, now: Callable[[], datetime] | None = None) -> None:
        self._live: Final = live
        self._now: Final = now or _now
        self._handed = 0
        self._known: dict[bytes, datetime] = {}
        self._known_of = 0

    def credentials(self) -> Any:
        """Return grpc's own form of it."""
        self._handed = self._live.generation
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._renewed, require_client_authentication=self._live.mutual
        )

    def admits(self, context: Any) -> bool:
        """Whether a call's client is still one of the clients' authorities', which its connection may have outlived."""
        if not self._live.mutual:
            return True
        told = context.auth_context()
        shown = told.get("x509_pem_cert_chain") or told.get("x509_pem_cert")
        return bool(shown) and self._trusts(shown[0])

    def _trusts(self, pem: bytes) -> bool:
        live, now = self._live, self._now()
        if self._known_of != live.generation or len(self._known) >= _KNOWN_MAX:
            self._known, self._known_of = {}, live.generation
        until = self._known.get(pem)
        if until is not None:
            return now < until
        peer = peer_of_pem(pem)
        if not is_trusted(peer, live.material, now=now):
            return False
        self._known[pem] = peer.not_after
        return True

    def _renewed(self) -> Any:
        """Return what is served now where it is not what was handed over last; called by grpc's threads."""
        generation = self._live.generation
        if generation == self._handed:
            return None
        made = self._configuration()
        self._handed = generation
        return made

    def _configuration(self) -> Any:
        material = self._live.material
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.cert)], root_certificates=material.client_ca or None
        )


def _now() -> datetime:
    return datetime.now(UTC)
