"""Secrets in files, each encrypted under a data key of its own that Keys wraps."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taut.adapters.durable import as_unavailable, locked, private_folder, remove_file, replace_file, sweep
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.ports.keys import Keys
from taut.ports.world import Random

VALUE_BYTES_MAX: Final = 64 << 10
_NAME: Final = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
_NAME_LENGTH_MAX: Final = 200
_SUFFIX: Final = ".secret"
_SLASH: Final = "+"  # not in the alphabet of names
_NONCE_BYTES: Final = 12


class _File(msgspec.Struct, frozen=True, array_like=True):
    """What lies on the disk: the data key, wrapped for this name, and the value under it."""

    wrapped: bytes
    nonce: bytes
    sealed: bytes


class FileSecrets:
    """One file a secret in a private folder; its name can be read there, its value cannot.

    An older value put back by somebody with access to the folder is not detected.
    """

    def __init__(self, folder: Path, *, keys: Keys, random: Random) -> None:
        self._folder = folder.absolute()
        self._keys = keys
        self._random = random
        with as_unavailable(f"secret store {self._folder} cannot be opened"):
            private_folder(self._folder)
            sweep(self._folder)

    def put(self, name: str, value: str) -> None:
        path, context = self._path(name), _context(name)
        plain = value.encode()
        if len(plain) > VALUE_BYTES_MAX:
            raise InvalidInput(f"secret {name} has {len(plain)} bytes: {VALUE_BYTES_MAX} are allowed")
        key, nonce = self._random.bytes(32), self._random.bytes(_NONCE_BYTES)
        file = _File(
            wrapped=self._keys.wrap(key, purpose="data", context=context),
            nonce=nonce,
            sealed=AESGCM(key).encrypt(nonce, plain, context),
        )
        with as_unavailable(f"secret {name} cannot be stored in {self._folder}"), self._lock():
            replace_file(path, msgspec.msgpack.encode(file))

    def rewrap(self) -> int:
        return sum(self._rewrap(name) for name in self.names())

    def _rewrap(self, name: str) -> bool:
        path, context = self._path(name), _context(name)
        with as_unavailable(f"secret {name} cannot be stored in {self._folder}"), self._lock():
            try:
                file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
            except FileNotFoundError:
                return False  # deleted since it was listed
            except ValueError as error:
                raise Corrupt(f"secret {name} was changed in {path}: put it again") from error
            key = self._keys.unwrap(file.wrapped, purpose="data", context=context)
            wrapped = self._keys.wrap(key, purpose="data", context=context)
            replace_file(path, msgspec.msgpack.encode(msgspec.structs.replace(file, wrapped=wrapped)))
        return True

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self._folder / "lock")

    def get(self, name: str) -> str:
        path, context = self._path(name), _context(name)
        with as_unavailable(f"secret {name} cannot be read from {self._folder}"):
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise _unknown(name) from error
        try:
            file = msgspec.msgpack.decode(data, type=_File)
            key = self._keys.unwrap(file.wrapped, purpose="data", context=context)
            return AESGCM(key).decrypt(file.nonce, file.sealed, context).decode()
        except (Corrupt, InvalidTag, ValueError) as error:
            # from None: what was decrypted or decoded must not travel in a traceback
            raise Corrupt(
                f"secret {name} was changed in {path}: put it again ({type(error).__name__})"
            ) from None

    def delete(self, name: str) -> None:
        path = self._path(name)
        with as_unavailable(f"secret {name} cannot be deleted from {self._folder}"):
            with self._lock():
                found = remove_file(path)
            if not found:
                raise _unknown(name)

    def names(self) -> tuple[str, ...]:
        with as_unavailable(f"secret store {self._folder} cannot be listed"):
            files = [path.name for path in self._folder.iterdir() if path.suffix == _SUFFIX]
        return tuple(sorted(file.removesuffix(_SUFFIX).replace(_SLASH, "/") for file in files))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH_MAX:
            raise InvalidInput(
                f"secret name {name[:80]!r} is not allowed: use up to {_NAME_LENGTH_MAX} of a-z, 0-9, '-', '_' in parts "
                "separated by '/'"
            )
        return self._folder / (name.replace("/", _SLASH) + _SUFFIX)


def _context(name: str) -> bytes:
    return b"taut/secret/1/" + name.encode()


def _unknown(name: str) -> NotFound:
    return NotFound(f"no secret {name}: list what there is, or put it")
