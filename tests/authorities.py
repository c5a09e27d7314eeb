"""Authorities with others under them, which taut itself makes none of."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from taut.trust.tls import Issued, create_authority


def authority_with(name: str, *, now: datetime, above: Issued | None = None) -> Issued:
    """An authority that may issue others, of its own or under another."""
    made = create_authority(name, days=30, now=now)
    key = serialization.load_pem_private_key(made.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    plain = x509.load_pem_x509_certificate(made.cert)
    signer = key if above is None else serialization.load_pem_private_key(above.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = plain.subject if above is None else x509.load_pem_x509_certificate(above.cert).subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(plain.subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return Issued(cert=builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM), key=made.key)
