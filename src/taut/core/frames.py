"""taut's column types as Polars types, both ways. Imported only where frames are."""

from __future__ import annotations

from typing import Final

import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, Schema

TO_POLARS: Final[dict[DType, pl.DataType]] = {
    DType.BOOL: pl.Boolean(),
    DType.INT: pl.Int64(),
    DType.FLOAT: pl.Float64(),
    DType.STRING: pl.String(),
    DType.DATE: pl.Date(),
    DType.DATETIME: pl.Datetime("us", "UTC"),
}


def from_polars(dtype: pl.DataType) -> DType:
    """Return the column type that holds values of a Polars type. Raises InvalidInput where none does."""
    if dtype == pl.Boolean:
        return DType.BOOL
    if dtype.is_integer():
        return DType.INT
    if dtype.is_float():
        return DType.FLOAT
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return DType.STRING
    if dtype == pl.Date:
        return DType.DATE
    if isinstance(dtype, pl.Datetime):
        return DType.DATETIME
    raise InvalidInput(f"type {dtype} is not supported: cast to one of {', '.join(DType)}")


def schema_of(frame: pl.DataFrame | pl.LazyFrame) -> Schema:
    """Return the schema of a frame; every column is nullable, since a frame does not say otherwise."""
    return Schema(
        tuple(
            Column(name, from_polars(dtype), nullable=True) for name, dtype in frame.collect_schema().items()
        )
    )


def to_polars(schema: Schema) -> pl.Schema:
    return pl.Schema({column.name: TO_POLARS[column.dtype] for column in schema.columns})
