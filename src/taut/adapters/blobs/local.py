"""Blobs in a directory of the local file system."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from taut.adapters.blobs.copies import LocalCopies
from taut.adapters.blobs.names import check_blob_name
from taut.adapters.blobs.sealed import MAGIC, Seal, plain_size
from taut.adapters.durable import (
    Staged,
    as_unavailable,
    private_folder,
    publish,
    publish_new,
    remove_file,
    staged,
    sweep,
    sync_folder,
)
from taut.core.canonical import digest_bytes, parse_digest
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable

_CHUNK_BYTES: Final = 1 << 20
_COPIES_BYTES: Final = 1 << 30
_FOLDER_MARK: Final = "~"  # not in the alphabet of names: `a` and `a/b` can both exist


class LocalBlobs:
    """A directory: `sha256/ab/cd…` by digest, `named/…` by name, `staging/` for what is being written.

    Blobs are files of mode 0400 in folders of mode 0700. Every read is verified, by `local` too and each time: a
    check of the file's time and size would be cheaper and would miss a byte that rotted on the disk (hashing costs
    about half a second a gigabyte). What one process leaves half-written when it is killed stays in `staging`,
    invisible, until the next one opens the store.

    seal: encrypts what is written from now on. What was stored open before is still read, and sealed when it is put
    again. `local` then yields a verified copy in a private folder under `copies` that goes with the process. There it
    lies open: a file system in memory is the place for it. At most 1 GiB is kept beyond what is in use.
    """

    def __init__(self, root: Path, *, seal: Seal | None = None, copies: Path | None = None) -> None:
        self._root = root.absolute()
        self._seal = seal
        self._by_digest = self._root / "sha256"
        self._by_name = self._root / "named"
        self._staging = self._root / "staging"
        with as_unavailable(f"blob store {self._root} cannot be opened"):
            for folder in (self._by_digest, self._by_name, self._staging):
                private_folder(folder)
            sweep(self._staging)
        self._copies = (
            None if seal is None else LocalCopies(copies or self._root / "copies", bytes_max=_COPIES_BYTES)
        )

    def put(self, data: bytes) -> str:
        digest = digest_bytes(data)
        path = self._path(digest)
        with as_unavailable(f"blob {digest} cannot be stored in {self._root}"):
            if self._holds(path, digest):
                return digest
            private_folder(path.parent)
            with staged(self._staging) as file:
                self._write(file, [data])
                publish(file, path, mode=0o400)
        return digest

    def _write(self, file: Staged, parts: Iterable[bytes]) -> None:
        for part in parts if self._seal is None else self._seal.seal(parts):
            file.write(part)

    def _is_sealed(self, descriptor: int) -> bool:
        return self._seal is not None and os.pread(descriptor, len(MAGIC), 0) == MAGIC

    def _content(self, descriptor: int) -> Iterator[bytes]:
        """Yield the plain bytes of a blob's file, sealed or not."""
        parts = _parts_of(descriptor)
        return self._seal.open(parts) if self._seal is not None and self._is_sealed(descriptor) else parts

    def put_file(self, path: Path) -> str:
        with _open_source(path) as source:
            digest = _digest_of(_parts_of(source))
            with as_unavailable(f"{path} cannot be stored in {self._root}"):
                if self._holds(self._path(digest), digest):
                    return digest
                os.lseek(source, 0, os.SEEK_SET)
                return self._copy(source)

    def _copy(self, source: int) -> str:
        # hashed again while it is copied: the file may have changed since it was hashed first
        hasher = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for part in _parts_of(source):
                hasher.update(part)
                yield part

        with staged(self._staging) as file:
            self._write(file, hashed())
            digest = f"sha256:{hasher.hexdigest()}"
            target = self._path(digest)
            private_folder(target.parent)
            publish(file, target, mode=0o400)
        return digest

    def _holds(self, path: Path, digest: str) -> bool:
        """Say whether the very bytes are there and durable; damaged ones are to be written again."""
        try:
            with _open_blob(path, digest) as descriptor:
                if self._seal is not None and not self._is_sealed(descriptor):
                    return False  # it lies open: it is to be written again
                whole = _digest_of(self._content(descriptor)) == digest
        except (NotFound, Corrupt):
            return False
        if whole:
            sync_folder(path.parent)  # another process may have moved it there a moment ago
        return whole

    def read(self, digest: str) -> bytes:
        with self._reading(digest), _open_blob(self._path(digest), digest) as descriptor:
            data = b"".join(self._verified(descriptor, digest))
        if digest_bytes(data) != digest:
            raise _corrupt(digest, self._path(digest))
        return data

    def _verified(self, descriptor: int, digest: str) -> Iterator[bytes]:
        try:
            yield from self._content(descriptor)
        except Corrupt as error:
            raise _corrupt(digest, self._path(digest)) from error

    @contextlib.contextmanager
    def local(self, digest: str) -> Iterator[Path]:
        path = self._path(digest)
        with self._reading(digest), _open_blob(path, digest) as descriptor:
            sealed = self._is_sealed(descriptor)
            if not sealed and _digest_of(_parts_of(descriptor)) != digest:
                raise _corrupt(digest, path)
        if sealed and self._copies is not None:
            with self._copies.hold(digest, lambda: self._opened(digest)) as copy:
                yield copy
        else:
            yield path

    def _opened(self, digest: str) -> Iterator[bytes]:
        with self._reading(digest), _open_blob(self._path(digest), digest) as descriptor:
            yield from self._verified(descriptor, digest)

    def close(self) -> None:
        """Remove this process's copies of sealed blobs."""
        if self._copies is not None:
            self._copies.close()

    def size(self, digest: str) -> int | None:
        path = self._path(digest)
        with self._reading(digest):
            try:
                with _open_blob(path, digest) as descriptor:
                    size = os.fstat(descriptor).st_size
                    return plain_size(size) if self._is_sealed(descriptor) else size
            except NotFound:
                return None

    def delete(self, digest: str) -> None:
        path = self._path(digest)
        with as_unavailable(f"blob {digest} cannot be deleted from {self._root}"):
            remove_file(path)
        if self._copies is not None:
            self._copies.forget(digest)

    def digests(self) -> Iterator[str]:
        with as_unavailable(f"blob store {self._root} cannot be listed"):
            for folder in sorted(self._by_digest.iterdir()):
                for path in sorted(folder.iterdir()):
                    yield f"sha256:{folder.name}{path.name}"

    def put_named(self, name: str, data: bytes) -> None:
        path = self._named_path(name)
        with as_unavailable(f"{name} cannot be stored in {self._root}"):
            private_folder(path.parent)
            with staged(self._staging) as file:
                self._write(file, [data])
                if publish_new(file, path, mode=0o400):
                    return
        if self.read_named(name) != data:
            raise Conflict(
                f"{name} is stored already with other bytes: names are written once, choose another"
            )

    def read_named(self, name: str) -> bytes:
        path = self._named_path(name)
        with as_unavailable(f"{name} cannot be read from {self._root}"), _open_blob(path, name) as descriptor:
            return b"".join(self._verified(descriptor, name))

    def names(self, prefix: str) -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_blob_name(folder)
        start = self._by_name.joinpath(*(part + _FOLDER_MARK for part in folder.split("/") if part))
        with as_unavailable(f"names in {self._root} cannot be listed"):
            for name in _walk(start, f"{folder}/" if folder else ""):
                if name.startswith(prefix):
                    yield name

    def _path(self, digest: str) -> Path:
        hexadecimal = parse_digest(digest).removeprefix("sha256:")
        return self._by_digest / hexadecimal[:2] / hexadecimal[2:]

    def _named_path(self, name: str) -> Path:
        *folders, last = check_blob_name(name).split("/")
        return self._by_name.joinpath(*(folder + _FOLDER_MARK for folder in folders), last)

    def _reading(self, digest: str) -> contextlib.AbstractContextManager[None]:
        return as_unavailable(f"blob {digest} cannot be read from {self._root}")


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Yield the names under `folder` in order of the whole name: `a`, `a-b`, `a/b`."""
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return
    for entry in sorted(entry.replace(_FOLDER_MARK, "/") for entry in entries):
        if entry.endswith("/"):
            yield from _walk(folder / (entry[:-1] + _FOLDER_MARK), prefix + entry)
        else:
            yield prefix + entry


@contextlib.contextmanager
def _open_blob(path: Path, what: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(
            f"no blob {what} in this store: check the name, or restore it from a backup"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _open_source(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}: check the path") from error
    except OSError as error:
        raise InvalidInput(f"file {path} cannot be read: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parts_of(descriptor: int) -> Iterator[bytes]:
    """Yield a file's bytes from where it stands."""
    try:
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            yield chunk
    except IsADirectoryError as error:
        raise InvalidInput("a folder cannot be stored as a blob: name a file") from error
    except OSError as error:
        raise Unavailable(f"reading failed: {error.strerror}: check the disk, then try again") from error


def _digest_of(parts: Iterable[bytes]) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return f"sha256:{hasher.hexdigest()}"


def _corrupt(digest: str, path: Path) -> Corrupt:
    return Corrupt(
        f"blob {digest} was changed on disk ({path}): restore it from a backup; nothing was read from it"
    )
