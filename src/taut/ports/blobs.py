"""Blobs: immutable bytes, named by their digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """A content-addressed store of bytes; digests are `sha256:` and 64 hexadecimal digits.

    Guarantees: what `put` or `put_file` returned is durable, and reads give exactly those bytes or raise Corrupt,
    never other bytes. Putting the same bytes again is free and safe, also from several processes at once. A put that
    fails leaves nothing that a reader could see.

    Not guaranteed: order of `digests`; that unreferenced blobs are kept (a collector may delete them after a grace
    period: put first, then commit the reference).

    Errors: NotFound for an unknown digest; Corrupt when stored bytes differ from their digest; Unavailable when the
    store does not answer or is full (safe to retry); InvalidInput for a malformed digest or name.
    """

    def put(self, data: bytes) -> str:
        """Store `data` and return its digest."""
        ...

    def put_file(self, path: Path) -> str:
        """Store a file's bytes without holding them in memory and return their digest. The file is only read."""
        ...

    def read(self, digest: str) -> bytes:
        """Return the bytes, verified."""
        ...

    def local(self, digest: str) -> AbstractContextManager[Path]:
        """Yield a read-only local file with the bytes, verified; valid inside the block only."""
        ...

    def size(self, digest: str) -> int | None:
        """Return the size in bytes, or None when there is no such blob."""
        ...

    def delete(self, digest: str) -> None:
        """Destroy the bytes. Deleting what is not there is no error."""
        ...

    def digests(self) -> Iterator[str]: ...

    def put_named(self, name: str, data: bytes) -> None:
        """Store bytes under a name of a-z, 0-9, `.`, `-`, `_` and `/`, once: Conflict when it holds other bytes."""
        ...

    def read_named(self, name: str) -> bytes: ...

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with `prefix`, in order."""
        ...
