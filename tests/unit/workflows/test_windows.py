"""Rows of a table by their place: the same rows as a scan of it, and each file verified when it is come to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.tables.parquet import ParquetTables
from taut.core.errors import Corrupt
from taut.core.schema import Column, DType, Schema
from taut.ports.tables import ROW_ID, TableManifest
from taut.workflows.windows import Windows

SCHEMA = Schema((Column("order", DType.INT), Column("x", DType.FLOAT)))


class Watched(LocalBlobs):
    """Blobs that tell which of them were verified, in order."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.verified: list[str] = []

    @contextmanager
    def local(self, digest: str) -> Iterator[Path]:
        self.verified.append(digest)
        with super().local(digest) as path:
            yield path


@pytest.fixture
def blobs(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.fixture
def tables(blobs: Watched) -> ParquetTables:
    return ParquetTables(blobs, file_rows=10)


def table(tables: ParquetTables, *rows: int) -> TableManifest:
    """Write a table whose files have so many rows."""
    manifest, first = TableManifest(schema=SCHEMA), 0
    for count in rows:
        frame = pl.DataFrame({"order": range(first, first + count), "x": [float(first)] * count})
        manifest = tables.write([frame], schema=SCHEMA, first_row_id=first, parent=manifest)
        first += count
    return manifest


@pytest.mark.parametrize("count", [1, 3, 4, 7, 100])
def test_windows_one_after_the_other_are_the_whole_table(tables: ParquetTables, count: int) -> None:
    manifest = table(tables, 4, 1, 10, 3)

    windows = Windows(tables, manifest, ("x", "order"))
    parts = [windows.rows(first, count) for first in range(0, manifest.rows, count)]

    whole = tables.scan(manifest, row_ids=True).select(ROW_ID, "x", "order").collect()
    assert pl.concat(parts).equals(whole)
    assert {part.height for part in parts[:-1]} <= {count}


def test_each_file_is_verified_once_when_its_first_row_is_asked_for(
    tables: ParquetTables, blobs: Watched
) -> None:
    manifest = table(tables, 4, 4, 4)
    windows = Windows(tables, manifest, ("order",))
    digests = [file.digest for file in manifest.files]

    windows.rows(0, 3)
    assert blobs.verified == digests[:1]
    windows.rows(3, 3)
    windows.rows(6, 2)
    assert blobs.verified == digests[:2]
    windows.rows(8, 4)
    assert blobs.verified == digests


def test_a_damaged_file_gives_none_of_its_rows(tables: ParquetTables, blobs: Watched, tmp_path: Path) -> None:
    manifest = table(tables, 4, 4)
    with blobs.local(manifest.files[1].digest) as path:
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    windows = Windows(tables, manifest, ("order",))

    assert windows.rows(0, 4)["order"].to_list() == [0, 1, 2, 3]
    with pytest.raises(Corrupt):
        windows.rows(3, 2)
