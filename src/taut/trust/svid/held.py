"""The identity that a home holds: its key and certificates in one file, whom it trusts in another, both for its owner alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from taut.core.errors import Corrupt, NotFound, Unavailable
from taut.trust.svid.bundle import Bundle
from taut.trust.svid.read import Svid, verify_chain
from taut.trust.tls.files import read_private

FOLDER: Final = "svid"
_OWN: Final = "svid.pem"
_NEXT: Final = "next.key"
_TRUSTED: Final = "bundle.json"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a folder. pem: private key, leaf, and the certificate above it. Its repr shows no key."""

    pem: bytes
    bundle: Bundle
    svid: Svid

    def __repr__(self) -> str:
        return f"Held({self.svid.id}, serial={self.svid.serial})"

    def key(self) -> ec.EllipticCurvePrivateKey:
        return _key(self.pem)

    def half_s(self) -> float:
        """Return when half of its life is over, in seconds since 1970."""
        return (self.svid.issued_at + (self.svid.not_after - self.svid.issued_at) / 2).timestamp()


class HeldFiles:
    """A folder of `home` that one process writes and others read. Each file is replaced whole."""

    def __init__(self, home: Path) -> None:
        self.folder: Final = home / FOLDER
        self.own: Final = self.folder / _OWN

    def read(self) -> Held:
        """Return what lies there. Raises NotFound where nothing does, Corrupt for what cannot be read, Denied for a key that is
        open to others."""
        pem = read_private(self.own)
        try:
            bundle = self.read_bundle()
            leaf, *above = x509.load_pem_x509_certificates(pem)
            chain = [one.public_bytes(Encoding.DER) for one in (leaf, *above)]
            found = verify_chain(chain, bundle, now=leaf.not_valid_before_utc)
            if _key(pem).public_key() != leaf.public_key():
                raise ValueError("its key is another one's")
        except ValueError as error:
            raise Corrupt(
                f"{self.own} cannot be used ({error}): remove it and join again with --join"
            ) from error
        return Held(pem=pem, bundle=bundle, svid=found)

    def read_bundle(self) -> Bundle:
        """Return who is trusted. Raises NotFound, Corrupt."""
        path = self.folder / _TRUSTED
        try:
            return Bundle.from_json(msgspec.json.decode(path.read_bytes()))
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there: join again with --join") from error
        except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise Corrupt(f"{path} cannot be read ({error}): remove it and join again with --join") from error

    def unchanged(self, held: Held) -> bool:
        """Whether what lies there is what was read before. Raises as `read` does."""
        return read_private(self.own) == held.pem and self.read_bundle() == held.bundle

    def write(
        self, key: ec.EllipticCurvePrivateKey, chain: Sequence[bytes], bundle: Bundle, *, now: datetime
    ) -> Held:
        """Keep an identity. Raises Unauthenticated where the chain does not lead to the bundle, Unavailable where the disk does not
        take it; what lay there before stays then."""
        found = verify_chain(chain, bundle, now=now)
        pem = _pem_of(key) + b"".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain
        )
        self._replace(_TRUSTED, msgspec.json.encode(bundle.to_json()))
        self._replace(_OWN, pem)
        return Held(pem=pem, bundle=bundle, svid=found)

    def next_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that is to be certified next: the same until `forget_next`, so that a lost answer can be asked for again."""
        try:
            return _key(read_private(self.folder / _NEXT))
        except NotFound:
            key = ec.generate_private_key(ec.SECP256R1())
            self._replace(_NEXT, _pem_of(key))
            return key

    def forget_next(self) -> None:
        """Have another key be the next one, once this one was certified and all that belongs to it is kept."""
        (self.folder / _NEXT).unlink(missing_ok=True)

    def _replace(self, name: str, data: bytes) -> None:
        path = self.folder / name
        temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written ({error.strerror}): free disk space or mend its rights"
            ) from error


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise Corrupt(
            f"the private key of this identity cannot be read ({error}): join again with --join"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Corrupt("the private key of this identity is of another kind: join again with --join")
    return key
