"""Whether the client of a connection that is open already is still one of our authorities'."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from taut.trust.tls.material import Material


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a client showed. chain: certificates as DER, its own first; not_after: until when its own is valid."""

    chain: tuple[bytes, ...]
    not_after: datetime


def peer_of(ssl_object: Any) -> PeerFacts | None:
    """Return what the other end of a connection showed; None where it showed nothing.

    ssl_object: of a transport. Python tells the chain that was verified from 3.13 on; before, only the first.
    """
    own = None if ssl_object is None else ssl_object.getpeercert(True)
    if not own:
        return None
    whole = getattr(ssl_object, "get_verified_chain", None)
    chain = [own] if whole is None else whole()
    certificate = x509.load_der_x509_certificate(own)
    return PeerFacts(chain=tuple(chain), not_after=certificate.not_valid_after_utc)


def peer_of_pem(pem: bytes) -> PeerFacts:
    """As `peer_of`, for a certificate that a library hands over as PEM."""
    certificate = x509.load_pem_x509_certificate(pem)
    return PeerFacts(
        chain=(certificate.public_bytes(Encoding.DER),), not_after=certificate.not_valid_after_utc
    )


def is_trusted(peer: PeerFacts | None, material: Material, *, now: datetime) -> bool:
    """Whether a client that was verified when it connected would still be.

    True: its certificate is valid now, and an authority of now issued it, or anchors the chain that was verified then.
    False may be wrong for a client whose chain is not known whole: it has to connect again, and is verified anew.
    """
    if peer is None or now >= peer.not_after:
        return False
    if any(above in material.authorities for above in peer.chain[1:]):
        return True
    own = x509.load_der_x509_certificate(peer.chain[0])
    authorities = [x509.load_der_x509_certificate(der) for der in material.authorities]
    return any(now < found.not_valid_after_utc and _issued(own, found) for found in authorities)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
