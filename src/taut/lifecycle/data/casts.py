"""From text, or from whatever a Parquet file holds, to the contract's types, with a mask of what would not go."""

from __future__ import annotations

from typing import Final

import polars as pl

from taut.core.frames import TO_POLARS
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec

_TRUE: Final = ("true", "True", "TRUE", "1")
_FALSE: Final = ("false", "False", "FALSE", "0")
_YEARS: Final = (1, 9999)  # what Python, SQL and Parquet readers all hold
_BROKEN: Final = "\x00broken:"


def to_types(
    raw: pl.DataFrame, columns: tuple[ColumnSpec, ...], *, null_values: tuple[str, ...]
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """Cast every column strictly; return the typed frame and, for columns with broken values, where they are.

    Broken values are null in the typed frame; `raw` still has them. Texts in `null_values` mean null. Times without
    an offset are UTC. Numbers are plain decimals: no spaces, no separators, and `1.0` is no integer.
    """
    cleaned = raw.select(_cleaned(raw.schema[spec.name], spec.name, null_values) for spec in columns)
    typed = cleaned.select(_cast(cleaned.schema[spec.name], spec).alias(spec.name) for spec in columns)
    broken: dict[str, pl.Series] = {}
    for spec in columns:
        if typed[spec.name].null_count() != cleaned[spec.name].null_count():
            broken[spec.name] = typed[spec.name].is_null() & cleaned[spec.name].is_not_null()
    return typed, broken


def _cleaned(dtype: pl.DataType, name: str, null_values: tuple[str, ...]) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.String and null_values:
        return pl.when(~column.is_in(list(null_values))).then(column).alias(name)
    return column


def _cast(source: pl.DataType, spec: ColumnSpec) -> pl.Expr:
    column = pl.col(spec.name)
    target = TO_POLARS[spec.dtype]
    if source == target or source == pl.Null:
        return column.cast(target)
    if source in (pl.Categorical, pl.Enum):
        source, column = pl.String(), column.cast(pl.String)
    if source == pl.String:
        return _from_text(column, spec.dtype)
    return _from_typed(column, source, spec.dtype)


def _from_text(column: pl.Expr, dtype: DType) -> pl.Expr:
    match dtype:
        case DType.STRING:
            return column
        case DType.BOOL:
            return pl.when(column.is_in(_TRUE)).then(True).when(column.is_in(_FALSE)).then(False)
        case DType.INT | DType.FLOAT:
            return column.cast(TO_POLARS[dtype], strict=False)
        case DType.DATE:
            return _within_years(column.str.to_date("%Y-%m-%d", strict=False))
        case DType.DATETIME:
            return _within_years(_datetime_from_text(column))


def _datetime_from_text(column: pl.Expr) -> pl.Expr:
    iso = column.str.replace(" ", "T", literal=True)
    naive = iso.str.strip_suffix("Z").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us")
    with_offset = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us")
    return pl.coalesce(naive.dt.replace_time_zone("UTC"), with_offset.dt.convert_time_zone("UTC"))


def _within_years(column: pl.Expr) -> pl.Expr:
    return pl.when(column.dt.year().is_between(*_YEARS)).then(column)


def _from_typed(column: pl.Expr, source: pl.DataType, dtype: DType) -> pl.Expr:
    """Convert only where nothing is lost; anything else becomes null and so is reported as broken."""
    target = TO_POLARS[dtype]
    nothing = pl.lit(None, dtype=target)
    if dtype is DType.INT and source.is_integer():
        return column.cast(target, strict=False)
    if dtype is DType.INT and source.is_float():
        return pl.when(column == column.round()).then(column.cast(target, strict=False))
    if dtype is DType.FLOAT and source.is_numeric():
        return column.cast(target, strict=False)
    if dtype is DType.DATETIME and isinstance(source, pl.Datetime):
        aware = column if source.time_zone else column.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone("UTC").cast(target, strict=False)
    if dtype is DType.DATETIME and source == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return nothing
