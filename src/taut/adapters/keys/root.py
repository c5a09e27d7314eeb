"""The root key of a file key store: how it is protected, made once and opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from taut.adapters.durable import replace_file
from taut.core.errors import Corrupt, Denied, InvalidInput, NotFound, Unavailable

ROOT_FILE: Final = "root.json"
FILE_BYTES_MAX: Final = 4 << 20
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_AAD: Final = b"taut/keys/root/1"

SCRYPT_COST: Final = 2**17
"""Cost of scrypt, n; with r = 8 it needs 128 MiB and about a third of a second (OWASP's advice of 2023)."""
_SCRYPT_COST_MIN: Final = 2**10
_SCRYPT_COST_MAX: Final = 2**20
_SCRYPT_BLOCK: Final = 8


class RootFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies in `root.json`. `key` is the root key itself under `file`, and encrypted under `passphrase`."""

    version: Literal[1]
    protection: Literal["file", "passphrase"]
    key: bytes
    salt: bytes = b""
    cost: int = 0


def read_private(path: Path) -> bytes:
    """Read a file that nobody but its owner may read.

    Raises NotFound, Denied when others may read or write it or it belongs to somebody else, Corrupt when it is larger
    than any key file, Unavailable on a fault of the disk.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"no key file {path}") from error
    except OSError as error:
        raise Denied(f"key file {path} cannot be opened: {error.strerror}: act as its owner") from error
    try:
        found = os.fstat(descriptor)
        _check_private(path, found)
        if found.st_size > FILE_BYTES_MAX:
            raise Corrupt(f"key file {path} has {found.st_size} bytes: restore it from a backup")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise Unavailable(f"key file {path} cannot be read: {error.strerror}: check the disk") from error
    finally:
        os.close(descriptor)


def check_folder(path: Path) -> None:
    """Refuse a folder in which others could replace key files."""
    found = path.stat()
    if found.st_mode & 0o022:
        raise Denied(
            f"key folder {path} can be written by others: run chmod 700 {path}, then check who used it"
        )
    _check_owner(path, found)


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Denied(f"key file {path} is no regular file: restore it from a backup")
    if found.st_mode & 0o077:
        raise Denied(
            f"key file {path} can be read by others (mode {stat.S_IMODE(found.st_mode):o}): run chmod 600 {path}, and "
            "rotate the keys if somebody else had access"
        )
    _check_owner(path, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    me = os.geteuid()
    if me not in (0, found.st_uid):  # root may act for the owner, such as in a container
        raise Denied(f"{path} belongs to user {found.st_uid}, not to you ({me}): act as its owner")


def new_root(*, passphrase: str | None, cost: int, random: Callable[[int], bytes]) -> tuple[bytes, RootFile]:
    key = random(_KEY_BYTES)
    return key, protect_root(key, passphrase=passphrase, cost=cost, random=random)


def protect_root(
    key: bytes, *, passphrase: str | None, cost: int, random: Callable[[int], bytes]
) -> RootFile:
    """Return the form in which the root key is stored. Raises InvalidInput on an empty passphrase or absurd cost."""
    if passphrase is None:
        return RootFile(version=1, protection="file", key=key)
    if not passphrase:
        raise InvalidInput(
            "the passphrase is empty: give one, or none at all for protection by file permissions"
        )
    salt, nonce = random(16), random(_NONCE_BYTES)
    sealed = AESGCM(_stretch(passphrase, salt=salt, cost=cost)).encrypt(nonce, key, _AAD)
    return RootFile(version=1, protection="passphrase", key=nonce + sealed, salt=salt, cost=cost)


def open_root(root: RootFile, *, passphrase: str | None, path: Path) -> bytes:
    """Return the root key. Raises Denied on a missing or wrong passphrase, Corrupt on a malformed file."""
    if root.protection == "file":
        if passphrase is not None:
            raise Denied(f"key store {path} has no passphrase: open it without, then set one with protect()")
        if len(root.key) != _KEY_BYTES:
            raise Corrupt(f"root key of {path} has a wrong length: restore {ROOT_FILE} from a backup")
        return root.key
    if passphrase is None:
        raise Denied(f"key store {path} is protected by a passphrase: give it")
    stretched = _stretch(passphrase, salt=root.salt, cost=root.cost)
    try:
        return AESGCM(stretched).decrypt(root.key[:_NONCE_BYTES], root.key[_NONCE_BYTES:], _AAD)
    except (InvalidTag, ValueError) as error:
        raise Denied(
            f"key store {path} does not open: the passphrase is wrong, or its file was changed"
        ) from error


def _stretch(passphrase: str, *, salt: bytes, cost: int) -> bytes:
    if not _SCRYPT_COST_MIN <= cost <= _SCRYPT_COST_MAX or cost & (cost - 1):
        raise InvalidInput(
            f"scrypt cost {cost} is not allowed: use a power of two from {_SCRYPT_COST_MIN} to {_SCRYPT_COST_MAX}"
        )
    return Scrypt(salt=salt, length=32, n=cost, r=_SCRYPT_BLOCK, p=1).derive(passphrase.encode())


def write_root(folder: Path, root: RootFile) -> None:
    replace_file(folder / ROOT_FILE, msgspec.json.encode(root))


def decode_root(data: bytes, path: Path) -> RootFile:
    try:
        return msgspec.json.decode(data, type=RootFile)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path / ROOT_FILE} cannot be read: {error}: restore it from a backup") from error
