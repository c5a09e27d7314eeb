"""Keys in an HSM, by PKCS #11: they are made in the token and never leave it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import (
    ArgumentsBad,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    MechanismInvalid,
    MultipleTokensReturned,
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
)
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from taut.adapters.durable import as_unavailable, locked, private_folder
from taut.core.errors import Corrupt, Denied, InvalidInput, TautError, Unavailable
from taut.ports.world import Random

T = TypeVar("T")

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_PIN = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired)
_CHANGED = (EncryptedDataInvalid, EncryptedDataLenRange, ArgumentsBad)
_SECRET: Final = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}


class Pkcs11Holder:
    """A token, in one session that is opened again when it is lost. One holder a process: a token knows one login.

    module: the driver's library. token: the token's label. pin: the user's.
    lock: a file that those who share the token on this machine lock while they make keys; a token has no such lock.
    random: nonces, since not every token makes its own.

    A version is three objects with the key's name as their label and the version as their id; the AES key is made last
    and says that the version is whole. A wrong PIN is never tried twice: a token locks itself after a few.
    Not guaranteed: an end to a call into a driver that hangs; that is the driver's setting.
    """

    def __init__(self, module: Path, *, token: str, pin: str, lock: Path, random: Random) -> None:
        self._module = module
        self._token = token
        self._pin = pin
        self._lock = lock.absolute()
        self._random = random
        self._one = threading.Lock()
        self._session: pkcs11.Session | None = None
        self._found: dict[tuple[str, int, ObjectClass], Any] = {}  # in this session
        with as_unavailable(f"lock {self._lock} cannot be made"):
            private_folder(self._lock.parent)
        try:
            self._library: Any = pkcs11.lib(str(module))
        except (PKCS11Error, RuntimeError) as error:
            raise InvalidInput(
                f"no PKCS #11 module can be loaded from {module}: name the driver's library with module-path"
            ) from error

    def newest(self, name: str) -> int:
        return self._ask(lambda session: _newest(session, name, ObjectClass.SECRET_KEY))

    def add(self, name: str, version: int) -> None:
        with as_unavailable(f"lock {self._lock} cannot be taken"), locked(self._lock):
            self._ask(lambda session: _add(session, name, version))

    def encrypt(self, name: str, version: int, plain: bytes, *, aad: bytes) -> bytes:
        nonce = self._random.bytes(_NONCE_BYTES)

        def work(session: Any) -> bytes:
            key = self._key(session, name, version, ObjectClass.SECRET_KEY)
            return nonce + _encrypt(key, nonce, plain, aad)

        return self._ask(work)

    def decrypt(self, name: str, version: int, sealed: bytes, *, aad: bytes) -> bytes:
        if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
            raise Corrupt(f"what {name} is to open is too short: it was cut off")
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]

        def work(session: Any) -> bytes:
            key = self._key(session, name, version, ObjectClass.SECRET_KEY)
            try:
                return _decrypt(key, nonce, body, aad)
            except PKCS11Error as error:
                if isinstance(error, _CHANGED) or _opens(key, self._random.bytes(_NONCE_BYTES)):
                    raise Corrupt(
                        f"wrapped key of {name} does not open: it was changed, or is used where it does not belong"
                    ) from error
                raise

        return self._ask(work)

    def sign(self, name: str, version: int, message: bytes) -> bytes:
        hashed = hashes.Hash(hashes.SHA256())
        hashed.update(message)
        digest = hashed.finalize()  # not every token hashes itself
        return self._ask(
            lambda session: bytes(
                self._key(session, name, version, ObjectClass.PRIVATE_KEY).sign(
                    digest, mechanism=Mechanism.ECDSA
                )
            )
        )

    def public(self, name: str, version: int) -> bytes:
        return self._ask(
            lambda session: encode_ec_public_key(self._key(session, name, version, ObjectClass.PUBLIC_KEY))
        )

    def close(self) -> None:
        with self._one:
            self._drop()

    def _ask(self, work: Callable[[Any], T]) -> T:
        """Do it in the session; once more in a new one, since a token that was reset forgot the old."""
        with self._one:
            try:
                return work(self._open())
            except TautError:
                raise
            except MechanismInvalid as error:
                raise InvalidInput(
                    f"token {self._token!r} does not do what taut needs (AES-GCM, ECDSA on P-256): use another"
                ) from error
            except PKCS11Error:
                self._drop()
            try:
                return work(self._open())
            except PKCS11Error as error:
                self._drop()
                raise Unavailable(
                    f"token {self._token!r} does not answer ({type(error).__name__}): see that the HSM is there"
                ) from error

    def _key(self, session: Any, name: str, version: int, kind: ObjectClass) -> Any:
        known = self._found.get((name, version, kind))
        if known is not None:
            return known
        wanted = {Attribute.LABEL: name, Attribute.CLASS: kind, Attribute.ID: _id(version)}
        found = list(session.get_objects(wanted))
        if not found:
            raise Corrupt(
                f"the token holds no version {version} of {name}: bring back the token that it was made in"
            )
        self._found[name, version, kind] = found[0]
        return found[0]

    def _open(self) -> Any:
        if self._session is not None:
            return self._session
        try:
            token = self._library.get_token(token_label=self._token)
            self._session = token.open(rw=True, user_pin=self._pin)
        except _PIN as error:
            raise Denied(
                f"token {self._token!r} does not open ({type(error).__name__}): give its PIN as "
                "TAUT_KEYS_PASSPHRASE, and mind that it locks after a few wrong ones"
            ) from error
        except MultipleTokensReturned as error:
            raise InvalidInput(
                f"several tokens are called {self._token!r} in {self._module}: give each a name of its own"
            ) from error
        except NoSuchToken as error:
            raise Unavailable(
                f"there is no token {self._token!r} in {self._module}: see that the HSM is there"
            ) from error
        return self._session

    def _drop(self) -> None:
        session, self._session = self._session, None
        self._found.clear()
        if session is None:
            return
        try:
            session.close()
        except PKCS11Error:
            return  # it is lost already, which is why it is let go


def _newest(session: Any, name: str, kind: ObjectClass) -> int:
    found = session.get_objects({Attribute.LABEL: name, Attribute.CLASS: kind})
    return max((int.from_bytes(key[Attribute.ID], "big") for key in found), default=0)


def _encrypt(key: Any, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    how = GCMParams(nonce, aad, _TAG_BYTES * 8)
    return bytes(key.encrypt(plain, mechanism=Mechanism.AES_GCM, mechanism_param=how))


def _decrypt(key: Any, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    how = GCMParams(nonce, aad, _TAG_BYTES * 8)
    return bytes(key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=how))


def _opens(key: Any, nonce: bytes) -> bool:
    """Say whether the key opens what it sealed just now: some tokens name a wrong tag like a fault of their own."""
    try:
        return _decrypt(key, nonce, _encrypt(key, nonce, b"taut", b""), b"") == b"taut"
    except PKCS11Error:
        return False


def _add(session: Any, name: str, version: int) -> None:
    if _newest(session, name, ObjectClass.SECRET_KEY) >= version:
        return
    # one that was cut off between the two left its signing key: it was never used, and serves as well as another
    if _newest(session, name, ObjectClass.PRIVATE_KEY) < version:
        curve = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        curve.generate_keypair(id=_id(version), label=name, store=True, private_template=_SECRET)
    session.generate_key(KeyType.AES, 256, id=_id(version), label=name, store=True, template=_SECRET)


def _id(version: int) -> bytes:
    return version.to_bytes(4, "big")
