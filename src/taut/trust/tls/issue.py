"""A small authority for a laptop or a test: it issues certificates of servers and clients, and keeps no record of them.

For anything larger use a real one: there is no revocation here but to make a new authority.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taut.core.errors import InvalidInput

MAX_HOSTS: Final = 100
_SKEW: Final = timedelta(minutes=5)
_NAME_CHARS: Final = 60


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate and its key, both as PEM. Its repr shows no key."""

    cert: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued()"


def create_authority(name: str, *, days: int, now: datetime) -> Issued:
    """Make an authority that may issue leaves only. name: what people read in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key, days=days, now=now).issuer_name(_named(name))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(signs=True), critical=True)
    return _signed(builder, key, key)


def issue_server(authority: Issued, hosts: Sequence[str], *, days: int, now: datetime) -> Issued:
    """Make a server's certificate for host names and addresses. Raises InvalidInput for what is neither."""
    if not 1 <= len(hosts) <= MAX_HOSTS:
        raise InvalidInput(f"{len(hosts)} hosts: name 1 to {MAX_HOSTS}")
    names = x509.SubjectAlternativeName([_general(host) for host in hosts])
    return _leaf(authority, hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, days=days, now=now)


def issue_client(authority: Issued, name: str, *, days: int, now: datetime) -> Issued:
    """Make a client's certificate. name: who it is, in a name of DNS's form."""
    names = x509.SubjectAlternativeName([_dns(name)])
    return _leaf(authority, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, days=days, now=now)


def _leaf(
    authority: Issued,
    name: str,
    names: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
    *,
    days: int,
    now: datetime,
) -> Issued:
    above = x509.load_pem_x509_certificate(authority.cert)
    above_key = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(above_key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(
            "the authority's key is not one that taut made: remove its files and make a new one"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + timedelta(days=days), above.not_valid_after_utc)
    builder = _builder(name, key, days=days, now=now, until=until).issuer_name(above.subject)
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(key_usage(signs=False), critical=True)
    issuer = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
    )  # verifiers refuse a leaf without
    return _signed(builder, above_key, key)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, *, days: int, now: datetime, until: datetime | None = None
) -> x509.CertificateBuilder:
    if days < 1:
        raise InvalidInput(f"{days} days: give at least 1")
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until or now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> Issued:
    return Issued(
        cert=builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_NAME_CHARS])])


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """Return what a key is for: to sign certificates and lists of revoked ones, or handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return _dns(host)


def _dns(name: str) -> x509.DNSName:
    labels = name.removeprefix("*.").split(".")
    sound = all(
        0 < len(label) < 64 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
    if not sound or len(name) > 253:
        raise InvalidInput(
            f"{name[:80]!r} is neither a host name nor an address: write for example ml.example.org"
        )
    return x509.DNSName(name)
