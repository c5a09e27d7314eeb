"""Tables: immutable columnar data with stable row ids, the only way in which stages read each other's data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from taut.core.schema import Schema

if TYPE_CHECKING:  # a fifth of a second at the start of every process, and some never see a frame
    import polars as pl

ROW_ID: Final = "_row_id"
"""Name of the column that identifies a row for ever: UInt64, given at the first ingest, never reused."""


class TableFile(msgspec.Struct, frozen=True, kw_only=True):
    """One Parquet file of a table: its blob, its rows and the range of its row ids."""

    digest: str
    rows: int
    size_bytes: int
    row_id_min: int
    row_id_max: int


class TableManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A table, whole: committing this value (in Records, by the stage that owns it) is what makes the data exist."""

    schema: Schema  # without the row id
    files: tuple[TableFile, ...] = ()

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


class Tables(Protocol):
    """Columnar storage on Blobs.

    Guarantees: a manifest that `write` returned can be scanned for ever and gives the same rows in the same order;
    a flipped byte in any file raises Corrupt before a row of that file is returned. Memory stays bounded by the
    chunks of the caller plus one row group.

    Not guaranteed: that files of a manifest that nobody committed are kept.

    Errors: Corrupt, Unavailable and NotFound as Blobs; InvalidInput when a frame does not fit the schema.
    """

    def write(
        self,
        frames: Iterable[pl.DataFrame],
        *,
        schema: Schema,
        first_row_id: int,
        parent: TableManifest | None = None,
    ) -> TableManifest:
        """Write frames of `schema` as new files, numbering rows from `first_row_id` unless they carry `_row_id`.

        parent: its files come first in the result and are shared, not copied.
        """
        ...

    def scan(
        self, manifest: TableManifest, *, columns: Iterable[str] | None = None, row_ids: bool = False
    ) -> pl.LazyFrame:
        """Return the rows, lazily; with `row_ids`, `_row_id` is the first column. Every file is verified first.

        columns: those to read, in this order; all when None.
        """
        ...

    def batches(self, manifest: TableManifest, *, row_ids: bool = False) -> Iterator[pl.DataFrame]:
        """Yield the rows in bounded frames, for work that must not hold the whole table."""
        ...
