"""What a server shows and trusts, read from its files and judged before anybody sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from taut.core.errors import InvalidInput
from taut.trust.tls.files import TlsFiles, read_private, read_public

WARN_DAYS: Final = 14
_DAY_S: Final = 86_400


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What one may know of a certificate. names: hosts and addresses that it speaks for. digest: SHA-256 of it, hexadecimal."""

    serial: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    digest: str

    def days_left(self, now: datetime) -> float:
        """Return how many days it is still valid; negative once it is not."""
        return (self.not_after - now).total_seconds() / _DAY_S


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate with its key, and the authorities of clients. Its repr shows no key."""

    cert: bytes
    key: bytes
    client_ca: bytes
    facts: Facts
    authorities: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Material(serial={self.facts.serial})"


def read_material(files: TlsFiles, *, now: datetime) -> Material:
    """Read and judge: the key fits the certificate, which is valid now and may be a server's.

    Raises NotFound, Denied, InvalidInput; each names the file and what to do. Not judged: whether clients trust the
    issuer, and whether the names are those that clients ask for.
    """
    cert = read_public(files.cert, "the certificate")
    key = read_private(files.key)
    client_ca = b"" if files.client_ca is None else read_public(files.client_ca, "the clients' authority")
    return Material(
        cert=cert,
        key=key,
        client_ca=client_ca,
        facts=_judge(files, cert, key, now),
        authorities=() if files.client_ca is None else _authorities(str(files.client_ca), client_ca),
    )


def read_facts(cert: Path) -> Facts:
    """Return what a file's first certificate says of itself, whether it is valid now or not."""
    return facts_of(read_certificates(str(cert), read_public(cert, "the certificate"))[0])


def facts_of(certificate: x509.Certificate) -> Facts:
    return Facts(
        serial=f"{certificate.serial_number:x}",
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        digest=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    )


def read_certificates(where: str, data: bytes) -> Sequence[x509.Certificate]:
    """Return the certificates of a PEM text. Raises InvalidInput where there is none, or one that is broken."""
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidInput(
            f"{where} holds no certificate, or a broken one: it must be PEM, whole lines from BEGIN to END"
        ) from error


def _judge(files: TlsFiles, cert: bytes, key: bytes, now: datetime) -> Facts:
    leaf = read_certificates(str(files.cert), cert)[0]
    _check_pair(files, leaf, key)
    facts = facts_of(leaf)
    if now >= facts.not_after:
        raise InvalidInput(
            f"the certificate {files.cert} expired on {facts.not_after:%Y-%m-%d %H:%M} UTC: renew it, and check the clock"
        )
    if now < facts.not_before:
        raise InvalidInput(
            f"the certificate {files.cert} is valid from {facts.not_before:%Y-%m-%d %H:%M} UTC only: check the clock"
        )
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return facts
    if (
        ExtendedKeyUsageOID.SERVER_AUTH not in usage
        and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage
    ):
        raise InvalidInput(
            f"the certificate {files.cert} is not one of a server (its extended key usage says so), and clients would "
            "refuse it: issue it with serverAuth"
        )
    return facts


def _check_pair(files: TlsFiles, leaf: x509.Certificate, key: bytes) -> None:
    try:
        private = serialization.load_pem_private_key(key, None)
    except TypeError as error:
        raise InvalidInput(
            f"the private key {files.key} is encrypted with a passphrase, and nobody is there to type it: store it "
            "decrypted, mode 0600 (`openssl pkey -in KEY -out NEW`)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{files.key} holds no private key as PEM that is understood") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise InvalidInput(
            f"the private key {files.key} is not that of the certificate {files.cert}: the server's certificate comes "
            "first in its file, then those of its issuers; replace both files"
        )


def _authorities(where: str, data: bytes) -> tuple[bytes, ...]:
    found = read_certificates(where, data)
    for certificate in found:
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise InvalidInput(
                f"{where} holds a certificate that is no authority ({certificate.subject.rfc4514_string()}): name the "
                "authorities that issue the clients' certificates"
            )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in found)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))
