from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import polars as pl
import pytest

from storage_faults import flip_a_bit, flip_a_bit_in_s3, local_blob_path, make_bucket, s3_options
from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.blobs.s3 import S3Blobs
from taut.adapters.tables.parquet import ParquetTables
from taut.core.errors import Corrupt
from taut.core.schema import Column, DType, Schema
from taut.ports.tables import TableFile, TableManifest, Tables
from taut.testing.conformance.tables import TablesSuite, ints


class TestTablesOnLocalBlobs(TablesSuite):
    @contextmanager
    def open(self, folder: Path) -> Iterator[Tables]:
        with closing(ParquetTables(LocalBlobs(folder / "blobs"), file_rows=7)) as tables:
            yield tables

    def damage(self, folder: Path, digest: str) -> None:
        flip_a_bit(local_blob_path(folder / "blobs", digest))


class TestTablesOnS3Blobs(TablesSuite):
    @pytest.fixture(autouse=True)
    def _server(self, s3_url: str) -> None:
        self._url = s3_url
        self._buckets: dict[Path, str] = {}

    def _bucket(self, folder: Path) -> str:
        if folder not in self._buckets:
            self._buckets[folder] = make_bucket(self._url)
        return self._buckets[folder]

    @contextmanager
    def open(self, folder: Path) -> Iterator[Tables]:
        with (
            closing(
                S3Blobs(
                    f"s3://{self._bucket(folder)}", copies=folder / "copies", options=s3_options(self._url)
                )
            ) as blobs,
            closing(ParquetTables(blobs, file_rows=7)) as tables,
        ):
            yield tables

    def damage(self, folder: Path, digest: str) -> None:
        flip_a_bit_in_s3(self._url, self._bucket(folder), f"sha256/{digest.removeprefix('sha256:')}")


_SCHEMA = Schema((Column("x", DType.INT),))


def test_a_file_that_is_not_what_the_manifest_says_is_corrupt(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    tables = ParquetTables(blobs)
    (file,) = tables.write([ints(1, 2)], schema=_SCHEMA, first_row_id=1).files
    forged = TableFile(digest=file.digest, rows=3, size_bytes=1, row_id_min=1, row_id_max=3)
    with pytest.raises(Corrupt, match="manifest"):
        list(tables.batches(TableManifest(schema=_SCHEMA, files=(forged,))))
    garbage = TableFile(digest=blobs.put(b"no parquet"), rows=3, size_bytes=1, row_id_min=1, row_id_max=3)
    with pytest.raises(Corrupt, match="no Parquet"):
        list(tables.batches(TableManifest(schema=_SCHEMA, files=(garbage,))))


def test_files_stay_near_their_bound_in_bytes_for_wide_rows(tmp_path: Path) -> None:
    schema = Schema((Column("s", DType.STRING),))
    tables = ParquetTables(LocalBlobs(tmp_path))
    frames = (pl.DataFrame({"s": [f"{index:04}" * 5000] * 600}) for index in range(12))  # 12 MB each
    manifest = tables.write(frames, schema=schema, first_row_id=1)
    assert len(manifest.files) >= 2
    assert manifest.rows == 7200
    assert max(batch.estimated_size() for batch in tables.batches(manifest)) <= 70 << 20


def test_a_scan_reads_only_what_a_filter_needs(tmp_path: Path) -> None:
    tables = ParquetTables(LocalBlobs(tmp_path))
    manifest = tables.write([ints(*range(1000))], schema=_SCHEMA, first_row_id=1)
    plan = tables.scan(manifest).filter(pl.col("x") > 990).explain()
    assert "SELECTION" in plan or "PREDICATE" in plan.upper()
    assert tables.scan(manifest).filter(pl.col("x") > 990).select(pl.len()).collect().item() == 9
