"""Whether the client of a connection that is open already is still one of our authorities'."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from taut.trust.tls.material import Material

_MAX_CHAIN: Final = 10


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a client showed. chain: certificates as DER, its own first, as many as are known; not_after: until when its own
    is valid."""

    chain: tuple[bytes, ...]
    not_after: datetime


def peer_of(ssl_object: Any) -> PeerFacts | None:
    """Return what the other end of a connection showed; None where it showed nothing.

    ssl_object: of a transport. Python tells more than the first certificate from 3.13 on.
    """
    own = None if ssl_object is None else ssl_object.getpeercert(True)
    if not own:
        return None
    whole = getattr(ssl_object, "get_unverified_chain", None)
    chain = [own] if whole is None else whole()
    certificate = x509.load_der_x509_certificate(own)
    return PeerFacts(chain=tuple(chain[:_MAX_CHAIN]), not_after=certificate.not_valid_after_utc)


def peer_of_pem(pem: bytes) -> PeerFacts:
    """As `peer_of`, for certificates that a library hands over as PEM, the client's own first."""
    found = x509.load_pem_x509_certificates(pem)[:_MAX_CHAIN]
    return PeerFacts(
        chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in found),
        not_after=found[0].not_valid_after_utc,
    )


def is_trusted(peer: PeerFacts | None, material: Material, *, now: datetime) -> bool:
    """Whether a client that was verified when it connected would still be.

    True: its certificate is valid now, and leads to an authority of now, over those that it showed with it. False may be
    wrong for a client whose chain is not known whole: it has to connect again, and is verified anew.
    """
    if peer is None or now >= peer.not_after:
        return False
    authorities = [x509.load_der_x509_certificate(der) for der in material.authorities]
    between = [x509.load_der_x509_certificate(der) for der in peer.chain[1:]]
    found: x509.Certificate | None = x509.load_der_x509_certificate(peer.chain[0])
    while found is not None:
        if any(issues(authority, found, now) for authority in authorities):
            return True
        above = next((one for one in between if issues(one, found, now)), None)
        if above is not None:
            between.remove(above)
        found = above
    return False


def issues(authority: x509.Certificate, certificate: x509.Certificate, now: datetime) -> bool:
    """Tell whether an authority that is valid now issued a certificate itself."""
    if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
        return False
    try:
        may = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return may
