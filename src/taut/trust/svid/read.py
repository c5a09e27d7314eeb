"""What a part shows, read and judged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from cryptography import x509

from taut.core.errors import InvalidInput, Unauthenticated
from taut.trust.svid.bundle import Bundle
from taut.trust.svid.ids import Kind, SpiffeId
from taut.trust.svid.mint import BACKDATED
from taut.trust.tls.peers import issues


class Svid(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf. serial: hexadecimal."""

    id: SpiffeId
    serial: str
    not_before: datetime
    not_after: datetime

    @property
    def issued_at(self) -> datetime:
        return self.not_before + BACKDATED

    def require_time(self, now: datetime) -> None:
        """Raise Unauthenticated where it is not valid now."""
        if now >= self.not_after:
            raise Unauthenticated(
                f"the identity {self.id} ended at {self.not_after:%Y-%m-%d %H:%M:%S} UTC: it is renewed by itself while control "
                "answers; check both clocks"
            )
        if now < self.not_before:
            raise Unauthenticated(
                f"the identity {self.id} is valid from {self.not_before:%Y-%m-%d %H:%M:%S} UTC only: check both clocks"
            )


def read_svid(der: bytes) -> Svid:
    """Read a leaf that somebody verified already, as TLS does. Raises Unauthenticated for what names no part."""
    leaf = x509.load_der_x509_certificate(der)
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise InvalidInput(f"a certificate with {len(uris)} URIs is no SVID: it has one")
        found = SpiffeId.parse(uris[0])
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Unauthenticated("the certificate that was shown names no part of the platform") from error
    except InvalidInput as error:
        raise Unauthenticated(error.message) from error
    return Svid(
        id=found,
        serial=f"{leaf.serial_number:x}",
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def require_kind(who: SpiffeId, domain: str, *kinds: Kind) -> None:
    """Raise Unauthenticated for a part of another trust domain, or of a kind that has no business here."""
    if who.domain != domain:
        raise Unauthenticated(
            f"{who} is of another trust domain than {domain}: join it anew with an invitation from here"
        )
    if who.kind not in kinds:
        raise Unauthenticated(f"{who} is no {' or '.join(sorted(kinds))}: it may not speak here")


def verify_chain(chain: Sequence[bytes], bundle: Bundle, *, now: datetime) -> Svid:
    """Return what a chain of certificates (DER, the leaf first) proves to those who trust a bundle.

    Raises Unauthenticated where it leads to none of its authorities, or is not valid now.
    """
    found = read_svid(chain[0])
    found.require_time(now)
    roots = [x509.load_der_x509_certificate(root) for root in bundle.roots]
    between = [x509.load_der_x509_certificate(der) for der in chain[1:3]]
    leaf = x509.load_der_x509_certificate(chain[0])
    for middle in between:
        if issues(middle, leaf, now) and any(issues(root, middle, now) for root in roots):
            return found
    raise Unauthenticated(
        f"{found.id} was issued by none of the authorities that are trusted here: join it anew"
    )
