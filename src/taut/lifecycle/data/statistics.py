"""Statistics of columns, gathered while rows pass and added up over batches."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from taut.core.evidence import Scalar
from taut.core.schema import DType
from taut.lifecycle.data.compiled import as_json
from taut.lifecycle.data.values import ColumnStatistics
from taut.project.manifest import ColumnSpec


class Tally(msgspec.Struct, frozen=True):
    """Sums of one column that add up: rows, nulls, sum of values, smallest and largest."""

    rows: int = 0
    nulls: int = 0
    total: float | None = None
    minimum: Scalar = None
    maximum: Scalar = None

    def plus(self, other: Tally) -> Tally:
        return Tally(
            rows=self.rows + other.rows,
            nulls=self.nulls + other.nulls,
            total=_plus(self.total, other.total),
            minimum=_least([self.minimum, other.minimum]),
            maximum=_least([self.maximum, other.maximum], largest=True),
        )

    def statistics(self) -> ColumnStatistics:
        values = self.rows - self.nulls
        return ColumnStatistics(
            null_fraction=self.nulls / self.rows if self.rows else 0.0,
            minimum=self.minimum,
            maximum=self.maximum,
            mean=self.total / values if self.total is not None and values else None,
        )


Tallies = dict[str, Tally]


def open_columns(columns: tuple[ColumnSpec, ...], subject: str | None) -> tuple[ColumnSpec, ...]:
    """Return the columns whose values may be looked at: not personal, not naming a person, not free text."""
    return tuple(
        column
        for column in columns
        if column.personal in (None, "keep") and column.name != subject and column.dtype is not DType.STRING
    )


def tally(frame: pl.DataFrame, looked_at: tuple[ColumnSpec, ...]) -> Tallies:
    """Tally a frame: nulls of every column, and values of those that may be looked at."""
    found: Tallies = {name: Tally(frame.height, frame[name].null_count()) for name in frame.columns}
    for column in looked_at:
        if column.name not in found:
            continue
        series = frame[column.name]
        found[column.name] = Tally(
            frame.height,
            series.null_count(),
            float(series.sum()) if column.dtype.numeric else None,
            as_json(series.min()),
            as_json(series.max()),
        )
    return found


def add(left: Tallies, right: Tallies) -> Tallies:
    """Add tallies of two parts of a table; a column that one part lacks is null there."""
    rows_left = max((t.rows for t in left.values()), default=0)
    rows_right = max((t.rows for t in right.values()), default=0)
    return {
        name: left.get(name, Tally(rows_left, rows_left)).plus(right.get(name, Tally(rows_right, rows_right)))
        for name in {**left, **right}
    }


def _plus(left: float | None, right: float | None) -> float | None:
    return right if left is None else left if right is None else left + right


def _least(values: list[Any], *, largest: bool = False) -> Scalar:
    present = [value for value in values if value is not None]
    if not present:
        return None
    found: Scalar = max(present) if largest else min(present)
    return found
