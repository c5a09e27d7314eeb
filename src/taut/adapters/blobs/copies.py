"""Local copies of blobs that live elsewhere: verified each time, bounded, gone with the process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from taut.adapters.durable import as_unavailable, own_folder, private_folder, sweep_folders
from taut.core.errors import Corrupt

_CHUNK_BYTES: Final = 1 << 20
_PREFIX: Final = "copies-"


class LocalCopies:
    """Files named by digest in a private folder of this process under `root`, at most `bytes_max` beyond those in use.

    A copy that is held is never evicted. Folders that a dead process left are removed when the next one begins.
    """

    def __init__(self, root: Path, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the least recently held first
        self._users: dict[str, int] = {}
        with as_unavailable(f"copies of blobs cannot be kept in {root}"):
            private_folder(root)
            sweep_folders(root, prefix=_PREFIX)
            self._folder, self._alive = own_folder(root, prefix=_PREFIX)

    @contextlib.contextmanager
    def hold(self, digest: str, fetch: Callable[[], Iterable[bytes]]) -> Iterator[Path]:
        """Yield a file with the blob's bytes, from `fetch` unless an intact copy is here.

        Raises Corrupt when what `fetch` gives is not what the digest names.
        """
        path = self._folder / digest.removeprefix("sha256:")
        with self._lock:
            self._users[digest] = self._users.get(digest, 0) + 1
        try:
            with as_unavailable(f"blob {digest} cannot be copied to {self._folder}"):
                size = self._intact(path, digest)
                if size is None:
                    size = self._download(path, digest, fetch())
            self._note(digest, size)
            yield path
        finally:
            with self._lock:
                self._users[digest] -= 1
            self._evict()

    def forget(self, digest: str) -> None:
        """Destroy the copy of a blob that was deleted."""
        with self._lock:
            self._sizes.pop(digest, None)
        (self._folder / digest.removeprefix("sha256:")).unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1

    def _intact(self, path: Path, digest: str) -> int | None:
        hasher, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    hasher.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return None
        return size if digest == f"sha256:{hasher.hexdigest()}" else None

    def _download(self, path: Path, digest: str, chunks: Iterable[bytes]) -> int:
        hasher, size = hashlib.sha256(), 0
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "wb") as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                    size += len(chunk)
            if digest != f"sha256:{hasher.hexdigest()}":
                raise Corrupt(
                    f"blob {digest} was changed in the object store: restore it; nothing was read from it"
                )
            os.chmod(name, 0o400)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        return size

    def _note(self, digest: str, size: int) -> None:
        with self._lock:
            self._sizes[digest] = size
            self._sizes.move_to_end(digest)

    def _evict(self) -> None:
        with self._lock:
            total = sum(self._sizes.values())
            for digest in [digest for digest in self._sizes if not self._users.get(digest)]:
                if total <= self._bytes_max:
                    break
                total -= self._sizes.pop(digest)
                self._users.pop(digest, None)
                (self._folder / digest.removeprefix("sha256:")).unlink(missing_ok=True)
