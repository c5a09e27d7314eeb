"""Keys in the hands of another: an HSM, a Vault, a cloud's key service. One face over what each of them can do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, NoReturn, Protocol, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.ports.keys import PublicKey, Purpose, separated

PLAIN_BYTES_MAX: Final = 4096
_CHECK_BYTES: Final = 8
_VERSION_BYTES: Final = 4
_HEAD: Final = b"\x02"
_HEAD_EMPTY: Final = b"\x03"  # not every holder takes an empty text: one zero byte stands for it


class Holder(Protocol):
    """What a holder does. A key has a name and versions 1, 2, 3…, each a P-256 signing key and an AES-256 key.

    Guarantees: a version that was once named by `newest` stays usable. `add` may be called by several at once, and
    again after it was cut off; it may make more than one version, never replace one.

    Errors: Unavailable when the holder does not answer, or not what was asked; Denied when it does not let us in.
    """

    def newest(self, name: str) -> int:
        """Return the current version; 0 where there is no such key."""
        ...

    def add(self, name: str, version: int) -> None:
        """See to it that `version`, one above the newest, exists whole."""
        ...

    def encrypt(self, name: str, version: int, plain: bytes, *, aad: bytes) -> bytes: ...

    def decrypt(self, name: str, version: int, sealed: bytes, *, aad: bytes) -> bytes:
        """Return what was encrypted. Raises Corrupt when it does not open, or there is no such version."""
        ...

    def sign(self, name: str, version: int, message: bytes) -> bytes:
        """Return `r || s` of ECDSA over SHA-256 of `message`."""
        ...

    def public(self, name: str, version: int) -> bytes:
        """Return the public key as DER SubjectPublicKeyInfo."""
        ...


class HeldKeys:
    """The port on a holder: names, versions, binding to purpose and context; and distrust of the answers.

    prefix: names this installation's keys, so that several may share one holder.

    What comes back is proved before it is relied on: a signature is verified, a wrapped key is unwrapped once. So a
    holder that answers nonsense costs an Unavailable, and never a data key under which something was written.
    A wrapped key carries 8 bytes of a digest: one that was damaged in a table is known without a call.
    A rotation elsewhere is seen at the next call, which is why wrapping and signing ask for the newest version first.
    """

    def __init__(self, holder: Holder, *, prefix: str, kind: str) -> None:
        self._holder = holder
        self._prefix = prefix
        self._kind = kind
        self._public: dict[tuple[str, int], tuple[PublicKey, ec.EllipticCurvePublicKey]] = {}

    def wrap(self, plain: bytes, *, purpose: Purpose, context: bytes) -> bytes:
        if len(plain) > PLAIN_BYTES_MAX:
            raise InvalidInput(
                f"{len(plain)} bytes are too many to wrap: wrap a data key and encrypt with that"
            )
        name = self._name(purpose)
        head, text = (_HEAD, plain) if plain else (_HEAD_EMPTY, b"\x00")
        aad = _aad(head, purpose, context)
        version = self._newest(name)
        sealed = self._holder.encrypt(name, version, text, aad=aad)
        if self._opened(name, version, sealed, aad) != text:
            self._nonsense(f"a wrapped key for {purpose} that does not open again")
        body = head + version.to_bytes(_VERSION_BYTES, "big") + sealed
        return body + _check(name, body)

    def _opened(self, name: str, version: int, sealed: bytes, aad: bytes) -> bytes | None:
        try:
            return self._holder.decrypt(name, version, sealed, aad=aad)
        except Corrupt:
            return None

    def unwrap(self, wrapped: bytes, *, purpose: Purpose, context: bytes) -> bytes:
        name = self._name(purpose)
        body, check = wrapped[:-_CHECK_BYTES], wrapped[-_CHECK_BYTES:]
        head = body[:1]
        if head not in (_HEAD, _HEAD_EMPTY) or _check(name, body) != check:
            raise Corrupt(
                f"wrapped key for {purpose} was changed, or it belongs to another installation or purpose"
            )
        version = int.from_bytes(body[1 : 1 + _VERSION_BYTES], "big")
        sealed, aad = body[1 + _VERSION_BYTES :], _aad(head, purpose, context)
        plain = self._holder.decrypt(name, version, sealed, aad=aad)
        return plain if head == _HEAD else b""

    def sign(self, message: bytes, *, purpose: Purpose) -> tuple[str, bytes]:
        name = self._name(purpose)
        covered = separated(message, purpose=purpose)
        version = self._newest(name)
        signature = self._holder.sign(name, version, covered)
        known, public = self._known(name, version, purpose)
        if len(signature) != 64 or not _verifies(public, signature, covered):
            self._nonsense(f"a signature for {purpose} that does not verify")
        return known.key_id, signature

    def public_keys(self, *, purpose: Purpose) -> tuple[PublicKey, ...]:
        name = self._name(purpose)
        newest = self._newest(name)
        return tuple(self._known(name, version, purpose)[0] for version in range(newest, 0, -1))

    def rotate(self, *, purpose: Purpose) -> PublicKey:
        name = self._name(purpose)
        before = self._holder.newest(name)
        self._holder.add(name, before + 1)
        newest = self._holder.newest(name)
        if newest <= before:
            self._nonsense(f"version {newest} of {name} after a rotation from {before}")
        return self._known(name, newest, purpose)[0]

    def _name(self, purpose: Purpose) -> str:
        if purpose not in get_args(Purpose):
            raise InvalidInput(f"no purpose {purpose!r}: use one of {', '.join(get_args(Purpose))}")
        return f"{self._prefix}-{purpose}"

    def _newest(self, name: str) -> int:
        newest = self._holder.newest(name)
        if newest == 0:
            self._holder.add(name, 1)
            newest = self._holder.newest(name)
            if newest == 0:
                self._nonsense(f"no key {name} after it was made")
        return newest

    def _known(
        self, name: str, version: int, purpose: Purpose
    ) -> tuple[PublicKey, ec.EllipticCurvePublicKey]:
        found = self._public.get((name, version))
        if found is None:
            found = _public_key(self._holder.public(name, version), purpose, self._nonsense)
            self._public[name, version] = found
        return found

    def _nonsense(self, what: str) -> NoReturn:
        raise Unavailable(
            f"the {self._kind} answered with {what}: nothing was done; look at it, then try again"
        )


def _public_key(
    der: bytes, purpose: str, nonsense: Callable[[str], NoReturn]
) -> tuple[PublicKey, ec.EllipticCurvePublicKey]:
    try:
        public = load_der_public_key(der)
    except ValueError:
        nonsense("a public key that is none")
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        nonsense("a public key that is not on P-256")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key_id = digest_bytes(der).removeprefix("sha256:")[:16]
    return PublicKey(key_id=key_id, purpose=purpose, pem=pem), public


def _verifies(public: ec.EllipticCurvePublicKey, signature: bytes, covered: bytes) -> bool:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public.verify(encode_dss_signature(r, s), covered, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _aad(head: bytes, purpose: str, context: bytes) -> bytes:
    return b"taut/wrap/" + head + b"/" + purpose.encode() + b"\n" + context


def _check(name: str, body: bytes) -> bytes:
    return hashlib.sha256(b"taut/wrapped/2/" + name.encode() + b"\n" + body).digest()[:_CHECK_BYTES]
