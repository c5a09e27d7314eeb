"""Reads Parquet in bounded pieces, its own types kept for the casts to judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from taut.lifecycle.data.records import (
    ROW,
    BatchRefused,
    RecordChunk,
    Wanted,
    in_contract_order,
    match_columns,
)

CHUNK_ROWS: Final = 131_072


def read_parquet(
    path: Path, wanted: Wanted, *, file: str, chunk_rows: int = CHUNK_ROWS
) -> Iterator[RecordChunk]:
    """Yield the records of a Parquet file on the local disk. Raises BatchRefused when it is none or does not fit."""
    try:
        scanned = pl.scan_parquet(path, glob=False)
        names = scanned.collect_schema().names()
        height = int(scanned.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BatchRefused(
            "readable", f"{file} is no Parquet file that can be read: {_first_line(error)}"
        ) from error
    places = match_columns(names, wanted, file=file)
    for start in range(0, height, chunk_rows):
        try:
            frame = scanned.select(list(places)).slice(start, chunk_rows).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BatchRefused(
                "readable", f"{file} is damaged near record {start + 1}: {_first_line(error)}"
            ) from error
        rows = pl.int_range(start + 1, start + 1 + frame.height, dtype=pl.Int64, eager=True).alias(ROW)
        yield RecordChunk(
            frame=in_contract_order(frame.with_columns(rows), wanted.columns), records=frame.height
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
