"""Keys in files: P-256 signing keys and AES-256 wrapping keys, encrypted under one root key."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple, get_args

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from taut.adapters.durable import as_unavailable, locked, private_folder, replace_file, sweep
from taut.adapters.keys.root import (
    ROOT_FILE,
    SCRYPT_COST,
    check_folder,
    decode_root,
    new_root,
    open_root,
    protect_root,
    read_private,
    write_root,
)
from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.ports.keys import PublicKey, Purpose, separated
from taut.ports.world import Random

PLAIN_BYTES_MAX: Final = 4096
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 8
_WRAP_VERSION: Final = b"\x01"
_HASH: Final = ec.ECDSA(hashes.SHA256())


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of one purpose as they lie, encrypted as a whole, in `PURPOSE.key`; the current ones come first."""

    signing: tuple[bytes, ...]  # PKCS 8, DER
    wrapping: tuple[tuple[bytes, bytes], ...]  # id, key


class _Loaded(NamedTuple):
    """The keys of one purpose, ready for use, and the file that they were read from."""

    file: str
    stamp: tuple[int, int, int]
    signer: ec.EllipticCurvePrivateKey
    public: tuple[PublicKey, ...]
    wrapping: dict[bytes, AESGCM]
    current: bytes


class FileKeys:
    """A key store in a private folder: `root.json` and one encrypted file a purpose.

    passphrase: protects the root key by scrypt. None: the root key lies in a file of mode 0600, so whoever can read
    the owner's files, or a backup of them, has the keys.
    random: makes the root, wrapping keys and nonces; signing keys come from OpenSSL.
    scrypt_cost: n of scrypt for a new passphrase, a power of two.

    Any number of threads, processes and forked children may use one folder: nothing but whole files is read, first use
    and rotation hold a lock on the folder, and a rotation elsewhere is seen at the next call (one stat a call).
    Not detected: an older copy of a purpose's file put back by somebody with access to the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        random: Random,
        passphrase: str | None = None,
        scrypt_cost: int = SCRYPT_COST,
    ) -> None:
        self._folder = folder.absolute()
        self._random = random
        self._cost = scrypt_cost
        self._loaded: dict[str, _Loaded] = {}
        with as_unavailable(f"key store {self._folder} cannot be opened"):
            private_folder(self._folder)
            check_folder(self._folder)
        self._root = AESGCM(self._open(passphrase))

    def _open(self, passphrase: str | None) -> bytes:
        try:
            data = read_private(self._folder / ROOT_FILE)
        except NotFound:
            return self._first_use(passphrase)
        return open_root(decode_root(data, self._folder), passphrase=passphrase, path=self._folder)

    def _first_use(self, passphrase: str | None) -> bytes:
        with as_unavailable(f"key store {self._folder} cannot be made"), self._lock():
            sweep(self._folder)
            try:
                data = read_private(self._folder / ROOT_FILE)
            except NotFound:
                if any(self._folder.glob("*.key")):
                    raise Corrupt(
                        f"{self._folder / ROOT_FILE} is missing but keys under it exist: restore it from a backup"
                    ) from None
                key, root = new_root(passphrase=passphrase, cost=self._cost, random=self._random.bytes)
                write_root(self._folder, root)
                return key
        return open_root(decode_root(data, self._folder), passphrase=passphrase, path=self._folder)

    def protect(self, passphrase: str | None, *, current: str | None) -> None:
        """Change how the root key is protected: by a passphrase, or by file permissions when None.

        current: the passphrase that opens the store now. Raises Denied when it does not.
        """
        with as_unavailable(f"key store {self._folder} cannot be changed"), self._lock():
            root = decode_root(read_private(self._folder / ROOT_FILE), self._folder)
            key = open_root(root, passphrase=current, path=self._folder)
            write_root(
                self._folder,
                protect_root(key, passphrase=passphrase, cost=self._cost, random=self._random.bytes),
            )

    def wrap(self, plain: bytes, *, purpose: Purpose, context: bytes) -> bytes:
        if len(plain) > PLAIN_BYTES_MAX:
            raise InvalidInput(
                f"{len(plain)} bytes are too many to wrap: wrap a data key and encrypt with that"
            )
        keys = self._keys(purpose)
        nonce = self._random.bytes(_NONCE_BYTES)
        sealed = keys.wrapping[keys.current].encrypt(nonce, plain, _wrap_aad(purpose, context))
        return _WRAP_VERSION + keys.current + nonce + sealed

    def unwrap(self, wrapped: bytes, *, purpose: Purpose, context: bytes) -> bytes:
        key_id, rest = wrapped[1 : 1 + _ID_BYTES], wrapped[1 + _ID_BYTES :]
        # a key that was once read stays valid for unwrapping: look at the file only for one that is not known
        known = self._loaded.get(purpose)
        cipher = known.wrapping.get(key_id) if known else None
        if cipher is None:
            cipher = self._keys(purpose).wrapping.get(key_id)
        if wrapped[:1] != _WRAP_VERSION or cipher is None:
            raise Corrupt(
                f"wrapped key for {purpose} names a wrapping key that this store does not hold: it was changed, or it "
                "belongs to another installation or purpose"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _wrap_aad(purpose, context))
        except (InvalidTag, ValueError) as error:
            raise Corrupt(
                f"wrapped key for {purpose} does not open: it was changed, or is used where it does not belong"
            ) from error

    def sign(self, message: bytes, *, purpose: Purpose) -> tuple[str, bytes]:
        keys = self._keys(purpose)
        r, s = decode_dss_signature(keys.signer.sign(separated(message, purpose=purpose), _HASH))
        return keys.public[0].key_id, r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_keys(self, *, purpose: Purpose) -> tuple[PublicKey, ...]:
        return self._keys(purpose).public

    def rotate(self, *, purpose: Purpose) -> PublicKey:
        path = self._path(purpose)
        with as_unavailable(f"keys for {purpose} cannot be rotated in {self._folder}"), self._lock():
            before = self._read(path) if path.exists() else None
            self._write(path, self._with_new(before))
        return self._keys(purpose).public[0]

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self._folder / "lock")

    def _path(self, purpose: Purpose) -> Path:
        if purpose not in get_args(Purpose):
            raise InvalidInput(f"no purpose {purpose!r}: use one of {', '.join(get_args(Purpose))}")
        return self._folder / f"{purpose}.key"

    def _keys(self, purpose: Purpose) -> _Loaded:
        known = self._loaded.get(purpose)
        if known is not None and _stamp(known.file) == known.stamp:
            return known
        path = self._path(purpose)
        with as_unavailable(f"keys for {purpose} cannot be read from {self._folder}"):
            if _stamp(path) is None:
                self._make(path)
            # the stamp is taken first: a rotation in between makes the next call read again
            stamp = _stamp(path)
            if stamp is None:
                raise Corrupt(f"key file {path} disappeared: restore it from a backup")
            loaded = _load(path, stamp, self._read(path), purpose)
        self._loaded[purpose] = loaded
        return loaded

    def _make(self, path: Path) -> None:
        with self._lock():
            if not path.exists():
                self._write(path, self._with_new(None))

    def _with_new(self, before: _Stored | None) -> _Stored:
        private = ec.generate_private_key(ec.SECP256R1())
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        wrapping = (self._random.bytes(_ID_BYTES), self._random.bytes(32))
        return _Stored(
            signing=(der, *(before.signing if before else ())),
            wrapping=(wrapping, *(before.wrapping if before else ())),
        )

    def _read(self, path: Path) -> _Stored:
        data = read_private(path)
        try:
            plain = self._root.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _file_aad(path))
            return msgspec.msgpack.decode(plain, type=_Stored)
        except (InvalidTag, ValueError) as error:
            raise Corrupt(f"key file {path} was changed or belongs to another store: restore it") from error

    def _write(self, path: Path, stored: _Stored) -> None:
        nonce = self._random.bytes(_NONCE_BYTES)
        sealed = self._root.encrypt(nonce, msgspec.msgpack.encode(stored), _file_aad(path))
        replace_file(path, nonce + sealed)


def _load(path: Path, stamp: tuple[int, int, int], stored: _Stored, purpose: str) -> _Loaded:
    signers = [_private_key(der) for der in stored.signing]
    return _Loaded(
        file=str(path),
        stamp=stamp,
        signer=signers[0],
        public=tuple(_public_key(signer, purpose) for signer in signers),
        wrapping={key_id: AESGCM(key) for key_id, key in stored.wrapping},
        current=stored.wrapping[0][0],
    )


def _private_key(der: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_der_private_key(der, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), (
        "the store was authenticated: nothing else was written"
    )
    return key


def _public_key(private: ec.EllipticCurvePrivateKey, purpose: str) -> PublicKey:
    public = private.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(key_id=digest_bytes(der).removeprefix("sha256:")[:16], purpose=purpose, pem=pem.decode())


def _stamp(path: Path | str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _wrap_aad(purpose: str, context: bytes) -> bytes:
    return b"taut/wrap/1/" + purpose.encode() + b"\n" + context


def _file_aad(path: Path) -> bytes:
    return b"taut/keys/1/" + path.name.encode()
