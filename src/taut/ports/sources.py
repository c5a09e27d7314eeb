"""Sources: files of records somewhere else, listed and read in bounded pieces."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file or object as it was listed. `etag` and `modified_us` change when its bytes may have changed."""

    url: str  # where to read it again
    name: str  # short, for people and reports: relative to the project where it can be
    size_bytes: int
    etag: str | None = None
    modified_us: int | None = None


class ByteStream(Protocol):
    """Bytes in order. `read(n)` returns at most n bytes, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


class Sources(Protocol):
    """A place that files are read from: a local disk, an object store.

    Guarantees: `find` returns files in the order of their names, each once; reading gives the bytes as they are at
    that moment, at most what was asked for at a time. Nothing is ever written there.

    Not guaranteed: that a file is the same at a second reading (the caller compares digests).

    Errors: NotFound when nothing matches, naming the nearest thing that exists; Denied when it may not be read;
    Unavailable when the place does not answer (safe to retry); InvalidInput for an address that it cannot mean.
    """

    def find(self, url: str, *, root: Path) -> tuple[SourceFile, ...]:
        """Return the files that an address, or a pattern with `*`, `?`, `[…]` or `**`, means.

        root: the folder that a relative local path starts from.
        """
        ...

    def open(self, file: SourceFile) -> AbstractContextManager[ByteStream]:
        """Open a file for reading from its beginning."""
        ...
