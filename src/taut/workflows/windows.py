"""The rows of a table by their place in its order, each file verified when the first of its rows is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import polars as pl

from taut.ports.tables import ROW_ID, TableManifest, Tables


class Windows:
    """Windows on a table, with its row ids. Work on the first of them begins before the last file is read through.

    Guarantees: no row of a file that was not verified, and each file verified once. Not guaranteed: that damage further
    on is met before the windows ahead of it were given.
    """

    def __init__(self, tables: Tables, manifest: TableManifest, columns: Sequence[str]) -> None:
        self._tables: Final = tables
        self._manifest: Final = manifest
        self._columns: Final = columns
        self._bounds: Final = list(pairwise(accumulate((file.rows for file in manifest.files), initial=0)))
        self._frames: Final[dict[int, pl.LazyFrame]] = {}

    def rows(self, first: int, count: int) -> pl.DataFrame:
        """Return `count` rows from the first on, fewer at the end of the table. Raises what scanning a table does."""
        parts = [
            self._file(index).slice(max(0, first - begin), min(end, first + count) - max(begin, first))
            for index, (begin, end) in enumerate(self._bounds)
            if begin < first + count and end > first
        ]
        return pl.concat(parts).collect()

    def _file(self, index: int) -> pl.LazyFrame:
        found = self._frames.get(index)
        if found is None:
            part = TableManifest(schema=self._manifest.schema, files=(self._manifest.files[index],))
            scanned = self._tables.scan(part, row_ids=True).select(ROW_ID, *self._columns)
            found = self._frames[index] = scanned
        return found
