"""Proof that one who asks for another certificate holds the key of the last."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

_PROVES: Final = b"taut/svid/renew\n"


def proof_of(key: ec.EllipticCurvePrivateKey, machine: str, csr: str) -> str:
    """Return what shows that the holder of `key` asks for `csr`, base64: ECDSA over SHA-256.

    It is worth nothing for another request, nor to whoever overhears it, since the request is for a key that its maker has.
    """
    return base64.b64encode(key.sign(_to_prove(machine, csr), ec.ECDSA(hashes.SHA256()))).decode()


def proves(pem: str, machine: str, csr: str, proof: str) -> bool:
    """Whether `proof` was made by the holder of a key for this request. pem: the public key."""
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey), "only such are kept"
    try:
        key.verify(base64.b64decode(proof, validate=True), _to_prove(machine, csr), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _to_prove(machine: str, csr: str) -> bytes:
    return _PROVES + machine.encode() + b"\n" + csr.encode()
