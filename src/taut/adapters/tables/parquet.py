"""Tables as Parquet files on Blobs: chunked, compressed, verified before they are read."""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import polars as pl

from taut.core.errors import Corrupt, InvalidInput
from taut.core.frames import TO_POLARS, from_polars, to_polars
from taut.core.schema import Column, Schema
from taut.ports.blobs import Blobs
from taut.ports.tables import ROW_ID, TableFile, TableManifest

FILE_ROWS_MAX: Final = 1_000_000
FILE_BYTES_MAX: Final = 64 << 20
"""Bounds of what one file holds, before compression: it is what a write and a batch keep in memory."""
ROW_GROUP_ROWS: Final = 131_072
_WORKERS: Final = 4
_ROW_ID_MAX: Final = 2**64 - 1


class ParquetTables:
    """Parquet with zstd and statistics, in files of at most `file_rows` rows and about 64 MiB before compression.

    pinned_files: how many files of past scans are kept reachable for lazy frames that were not collected yet; a frame
    of an older scan than that may fail to collect (never read other bytes) on stores that fetch files to this machine.

    The same frames, schema and row ids give the same files and digests with one version of Polars.
    """

    def __init__(self, blobs: Blobs, *, file_rows: int = FILE_ROWS_MAX, pinned_files: int = 4096) -> None:
        if file_rows < 1 or pinned_files < 1:
            raise InvalidInput("file_rows and pinned_files must be positive")
        self._blobs = blobs
        self._file_rows = file_rows
        self._pins = _Pins(pinned_files)

    def write(
        self,
        frames: Iterable[pl.DataFrame],
        *,
        schema: Schema,
        first_row_id: int,
        parent: TableManifest | None = None,
    ) -> TableManifest:
        _check_parent(schema, first_row_id, parent)
        files = list(parent.files) if parent else []
        numbered = _numbered(frames, schema=schema, first_row_id=first_row_id)
        for chunk in _chunks(numbered, rows_max=self._file_rows):
            files.append(self._store(chunk))
        return TableManifest(schema=schema, files=tuple(files))

    def _store(self, frame: pl.DataFrame) -> TableFile:
        ids = frame.get_column(ROW_ID)
        if ids.n_unique() != ids.len():
            raise InvalidInput(f"{ROW_ID} repeats within a file: a row id names one row for ever")
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", statistics=True, row_group_size=ROW_GROUP_ROWS)
        data = buffer.getvalue()
        low, high = ids.min(), ids.max()
        assert isinstance(low, int), "chunks are never empty"
        assert isinstance(high, int), "chunks are never empty"
        return TableFile(
            digest=self._blobs.put(data),
            rows=frame.height,
            size_bytes=len(data),
            row_id_min=low,
            row_id_max=high,
        )

    def scan(
        self, manifest: TableManifest, *, columns: Iterable[str] | None = None, row_ids: bool = False
    ) -> pl.LazyFrame:
        wanted = _wanted(manifest.schema, columns, row_ids=row_ids)
        stored = _stored_schema(manifest.schema)
        if not manifest.files:
            return pl.LazyFrame(schema=stored).select(wanted)
        paths = self._verified(manifest.files)
        return pl.scan_parquet(paths, schema=stored, glob=False, hive_partitioning=False, cache=False).select(
            wanted
        )

    def _verified(self, files: Sequence[TableFile]) -> list[Path]:
        """Return local paths of the files, each verified, a few at once: hashing and fetching use other cores."""
        digests = [file.digest for file in files]
        with ThreadPoolExecutor(max_workers=min(_WORKERS, len(digests))) as workers:
            return list(
                workers.map(lambda digest: self._pins.hold(digest, self._blobs.local(digest)), digests)
            )

    def batches(self, manifest: TableManifest, *, row_ids: bool = False) -> Iterator[pl.DataFrame]:
        wanted = _wanted(manifest.schema, None, row_ids=row_ids)
        for file in manifest.files:
            with self._blobs.local(file.digest) as path:
                frame = _read(path, file, manifest.schema)
            for start in range(0, frame.height, ROW_GROUP_ROWS):
                yield frame.slice(start, ROW_GROUP_ROWS).select(wanted)

    def close(self) -> None:
        """Let go of the files of past scans. Lazy frames that were not collected may fail afterwards."""
        self._pins.close()


class _Pins:
    """Local files that lazy frames may still read, the oldest let go of first."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._held: OrderedDict[str, contextlib.ExitStack] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, digest: str, opened: AbstractContextManager[Path]) -> Path:
        stack = contextlib.ExitStack()
        path = stack.enter_context(opened)
        with self._lock:
            leaving = [self._held.pop(digest, contextlib.ExitStack())]
            self._held[digest] = stack
            while len(self._held) > self._count_max:
                leaving.append(self._held.popitem(last=False)[1])
        for old in leaving:
            old.close()
        return path

    def close(self) -> None:
        with self._lock:
            held, self._held = self._held, OrderedDict()
        for stack in held.values():
            stack.close()


def _check_parent(schema: Schema, first_row_id: int, parent: TableManifest | None) -> None:
    if ROW_ID in schema.names:
        raise InvalidInput(f"a schema must not name {ROW_ID}: that column belongs to the store")
    if first_row_id < 0:
        raise InvalidInput(f"first_row_id is {first_row_id}: row ids begin at 0")
    if parent is None:
        return
    if parent.schema != schema:
        raise InvalidInput(
            "the parent has another schema: files can be shared between tables of one schema only"
        )
    highest = max((file.row_id_max for file in parent.files), default=-1)
    if first_row_id <= highest:
        raise InvalidInput(
            f"first_row_id {first_row_id} is used in the parent already: begin at {highest + 1} or above"
        )


def _numbered(frames: Iterable[pl.DataFrame], *, schema: Schema, first_row_id: int) -> Iterator[pl.DataFrame]:
    next_id = first_row_id
    for frame in frames:
        if frame.height == 0:
            _fit(frame, schema)
            continue
        if ROW_ID in frame.columns:
            yield _fit(frame.drop(ROW_ID), schema).insert_column(0, _row_ids(frame.get_column(ROW_ID)))
            continue
        if next_id + frame.height - 1 > _ROW_ID_MAX:
            raise InvalidInput(f"row ids from {next_id} on do not fit 64 bits")
        fitted = _fit(frame, schema)
        ids = pl.int_range(next_id, next_id + frame.height, dtype=pl.UInt64, eager=True)
        next_id += frame.height
        yield fitted.insert_column(0, ids.alias(ROW_ID))


def _row_ids(ids: pl.Series) -> pl.Series:
    if not ids.dtype.is_integer() or ids.null_count():
        raise InvalidInput(
            f"{ROW_ID} must be integers without nulls, not {ids.dtype} with {ids.null_count()} nulls"
        )
    try:
        return ids.cast(pl.UInt64, strict=True).alias(ROW_ID)
    except pl.exceptions.InvalidOperationError as error:
        raise InvalidInput(f"{ROW_ID} must not be negative") from error


def _fit(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Return a frame with exactly the schema's columns and types, in its order, or raise InvalidInput."""
    missing = [name for name in schema.names if name not in frame.columns]
    extra = [name for name in frame.columns if name not in schema.names]
    if missing or extra:
        said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(extra)} too"] * bool(extra)
        raise InvalidInput(f"frame does not fit the schema: it {' and '.join(said)}")
    return pl.DataFrame([_fit_column(frame.get_column(column.name), column) for column in schema.columns])


def _fit_column(series: pl.Series, column: Column) -> pl.Series:
    if not column.nullable and series.null_count():
        raise InvalidInput(f"column {column.name!r} has {series.null_count()} nulls but must have none")
    wanted = TO_POLARS[column.dtype]
    if series.dtype == wanted:
        return series
    naive = isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None
    if series.dtype != pl.Null and (naive or from_polars(series.dtype) is not column.dtype):
        raise InvalidInput(
            f"column {column.name!r} is {series.dtype}, not {wanted}: cast it before it is written"
        )
    try:
        return series.cast(wanted, strict=True)
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"column {column.name!r} does not fit {wanted}: {error}") from error


def _chunks(frames: Iterable[pl.DataFrame], *, rows_max: int) -> Iterator[pl.DataFrame]:
    """Gather and cut frames so that each result is one file's worth; never holds more than one and the caller's."""
    waiting: list[pl.DataFrame] = []
    rows = size = 0
    for frame in frames:
        for piece in _cut(frame, rows_max=rows_max):
            piece_bytes = piece.estimated_size()
            if waiting and (rows + piece.height > rows_max or size + piece_bytes > FILE_BYTES_MAX):
                yield pl.concat(waiting)
                waiting, rows, size = [], 0, 0
            waiting.append(piece)
            rows, size = rows + piece.height, size + int(piece_bytes)
    if waiting:
        yield pl.concat(waiting)


def _cut(frame: pl.DataFrame, *, rows_max: int) -> Iterator[pl.DataFrame]:
    bytes_per_row = max(1.0, frame.estimated_size() / max(1, frame.height))
    step = max(1, min(rows_max, ROW_GROUP_ROWS, int(FILE_BYTES_MAX / bytes_per_row)))
    for start in range(0, frame.height, step):
        yield frame.slice(start, step)


def _wanted(schema: Schema, columns: Iterable[str] | None, *, row_ids: bool) -> list[str]:
    names = [schema[name].name for name in columns] if columns is not None else list(schema.names)
    return [ROW_ID, *names] if row_ids else names


def _stored_schema(schema: Schema) -> pl.Schema:
    return pl.Schema({ROW_ID: pl.UInt64(), **to_polars(schema)})


def _read(path: Path, file: TableFile, schema: Schema) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False, memory_map=False)
    except pl.exceptions.PolarsError as error:
        raise Corrupt(f"blob {file.digest} is no Parquet file: restore the manifest") from error
    if frame.height != file.rows or frame.schema != _stored_schema(schema):
        raise Corrupt(
            f"blob {file.digest} is not the table file that its manifest describes: restore the manifest"
        )
    return frame
