"""The authorities of one trust domain, in SPIFFE's JSON. Source: SPIFFE Trust Domain and Bundle, section 4."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from taut.core.errors import Corrupt

_USE: Final = "x509-svid"
_REFRESH_S: Final = 300
_MAX_KEYS: Final = 64


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """roots: certificates of authorities, DER, the current one first. sequence: grows with each change."""

    roots: tuple[bytes, ...]
    sequence: int

    @property
    def pem(self) -> str:
        return "".join(
            x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM).decode() for root in self.roots
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as SPIFFE publishes it."""
        return {
            "keys": [_jwk(root) for root in self.roots],
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": _REFRESH_S,
        }

    @classmethod
    def from_json(cls, found: object) -> Bundle:
        """Read one; keys for other uses are passed over, as the source wants it. Raises Corrupt."""
        try:
            read = msgspec.convert(found, _Document)
            entries = [entry for entry in read.keys if entry.use == _USE]
            if not 1 <= len(entries) <= _MAX_KEYS or any(len(entry.x5c) != 1 for entry in entries):
                raise ValueError("it holds no authority, or too many")
            roots = tuple(base64.b64decode(entry.x5c[0], validate=True) for entry in entries)
            for root in roots:
                _point(root)
        except (msgspec.ValidationError, ValueError) as error:
            raise Corrupt(f"the bundle of authorities cannot be read: {error}") from error
        return cls(roots=roots, sequence=read.spiffe_sequence)


class _Entry(msgspec.Struct):
    use: str = ""
    x5c: tuple[str, ...] = ()


class _Document(msgspec.Struct):
    keys: tuple[_Entry, ...]
    spiffe_sequence: int = 0


def _point(root: bytes) -> ec.EllipticCurvePublicNumbers:
    key = x509.load_der_x509_certificate(root).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("an authority's key is none of P-256")
    return key.public_numbers()


def _jwk(root: bytes) -> dict[str, Any]:
    point = _point(root)
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (point.x, point.y))
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": x,
        "y": y,
        "use": _USE,
        "x5c": [base64.b64encode(root).decode()],
    }
