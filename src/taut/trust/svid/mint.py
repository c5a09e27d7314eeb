"""Certificates of the platform's own parts: a root whose key never leaves its holder, an intermediate that lives in control's
memory, leaves of a quarter of an hour. Source: SPIFFE X.509-SVID; RFC 5280.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taut.core.errors import InvalidInput
from taut.trust.svid.ids import SpiffeId
from taut.trust.tls.issue import key_usage

LIFE: Final = timedelta(minutes=15)
INTERMEDIATE_LIFE: Final = timedelta(hours=24)
ROOT_LIFE: Final = timedelta(days=3650)
BACKDATED: Final = timedelta(seconds=60)
"""By how much a machine's clock may be behind. What was issued at T says that it is valid from T minus this on."""

_MAX_CSR_BYTES: Final = 4096

Sign = Callable[[bytes], bytes]
"""Signs with a key that is elsewhere: ECDSA P-256 over SHA-256, raw `r || s`."""


class Intermediate(msgspec.Struct, frozen=True, kw_only=True):
    """An authority for leaves. Its repr shows no key."""

    cert: bytes  # PEM
    key: ec.EllipticCurvePrivateKey
    not_before: datetime
    not_after: datetime

    def __repr__(self) -> str:
        return "Intermediate()"

    def due(self, now: datetime) -> bool:
        """Whether another one should take its place: at half of its life, or when the clock was set to where it is not valid."""
        half = self.not_before + (self.not_after - self.not_before) / 2
        return not self.not_before <= now < half


def make_root(domain: str, public_pem: str, sign: Sign, *, now: datetime) -> bytes:
    """Return the certificate of a trust domain's root, PEM. public_pem: of the key that `sign` signs with."""
    key = _Elsewhere(_public(public_pem), sign)
    builder = _builder(_name(domain, "root"), key.public_key(), now=now, until=now + ROOT_LIFE)
    builder = builder.issuer_name(_name(domain, "root"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(key_usage(signs=True), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make_intermediate(domain: str, root_pem: bytes, sign: Sign, *, now: datetime) -> Intermediate:
    """Make an authority for leaves below the root whose key `sign` signs with; its own key is in memory alone."""
    root = x509.load_pem_x509_certificate(root_pem)
    public = root.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey), "roots are of P-256"
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + INTERMEDIATE_LIFE, root.not_valid_after_utc)
    builder = _builder(_name(domain, "intermediate"), key.public_key(), now=now, until=until)
    builder = builder.issuer_name(root.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(signs=True), critical=True)
    builder = builder.add_extension(_issued_by(root), critical=False)
    cert = builder.sign(_Elsewhere(public, sign), hashes.SHA256())
    return Intermediate(
        cert=cert.public_bytes(Encoding.PEM), key=key, not_before=cert.not_valid_before_utc, not_after=until
    )


def mint(
    above: Intermediate, who: SpiffeId, key: ec.EllipticCurvePublicKey, *, issued_at: datetime
) -> x509.Certificate:
    """Return a leaf for `who`, valid for `LIFE`, as client and as server. issued_at: whole seconds."""
    issuer = x509.load_pem_x509_certificate(above.cert)
    until = min(issued_at + LIFE, above.not_after)
    builder = _builder(_name(who.domain, who.name), key, now=issued_at, until=until)
    builder = builder.issuer_name(issuer.subject)
    names = [x509.UniformResourceIdentifier(str(who)), x509.DNSName(who.host)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(signs=False), critical=True)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(_issued_by(issuer), critical=False)  # verifiers refuse a leaf without
    return builder.sign(above.key, hashes.SHA256())


def make_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a request for a certificate of a key, PEM. What the certificate says is the issuer's word alone."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def key_of_request(csr: str) -> ec.EllipticCurvePublicKey:
    """Return the key that a request is for, which signed it. Raises InvalidInput for anything else."""
    try:
        if len(csr) > _MAX_CSR_BYTES:
            raise ValueError("it is too large")
        request = x509.load_pem_x509_csr(csr.encode("ascii"))
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("its key is none of P-256")
        if not request.is_signature_valid:
            raise ValueError("its key did not sign it")
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"the request for a certificate cannot be used: {error}") from error
    return key


def spki(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as PEM, its one form."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput("the holder of keys gave a key of another kind than P-256 for identities")
    return key


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, *, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(domain: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


class _Elsewhere(ec.EllipticCurvePrivateKey):
    """A key that others hold, as `cryptography` wants to be given one to sign with: it can do nothing else."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:  # noqa: ARG002 - the base class names it so
        raw = self._sign(bytes(data))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def exchange(self, *_: Any) -> NoReturn:
        raise NotImplementedError("the key is elsewhere")

    private_numbers = exchange
    private_bytes = exchange  # type: ignore[assignment]  # whatever is asked, there is nothing to give

    def __copy__(self) -> _Elsewhere:
        return self

    def __deepcopy__(self, _memo: dict[Any, Any]) -> _Elsewhere:
        return self
