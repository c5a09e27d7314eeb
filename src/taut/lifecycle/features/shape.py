"""What a feature set's function must return, checked where it ran and again before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from taut.core.errors import InvalidInput
from taut.core.frames import TO_POLARS, from_polars
from taut.core.schema import Column, DType, Schema
from taut.project.manifest import FeaturesSpec

_ENTITY_TYPES: Final = (
    DType.STRING,
    DType.INT,
    DType.BOOL,
)  # what has one spelling; floats and times have not
_FEATURE_TYPES: Final = (DType.BOOL, DType.INT, DType.FLOAT, DType.STRING)
_EXAMPLES: Final = 3
MESSAGE_MAX: Final = 1000  # of what Polars or the builder's code says: a plan may be pages long


def feature_names(schema: Schema, spec: FeaturesSpec) -> tuple[str, ...]:
    """Return the columns of a materialisation that are features, in order."""
    return tuple(name for name in schema.names if name not in (*spec.entity, spec.event_time))


def shaped(result: object, spec: FeaturesSpec) -> pl.DataFrame:
    """Return a function's result as entity columns, event time and features, in taut's types, sorted by the former.

    Sorting makes equal results equal bytes, whatever order the function left them in.
    Raises InvalidInput when the result is no frame, is empty, lacks a column, has no feature, holds a type that
    cannot be a key or a feature, a null key or time, NaN or infinity, or two rows of one entity and time.
    """
    what = f"feature set {spec.name!r}"
    if not isinstance(result, pl.LazyFrame | pl.DataFrame):
        raise InvalidInput(f"{what}: the function returned {type(result).__name__}, not a polars frame")
    try:
        frame = result.lazy().collect()
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{what}: the frame cannot be computed: {str(error)[:MESSAGE_MAX]}") from error
    names = _check_columns(frame, spec, what)
    if frame.height == 0:
        raise InvalidInput(f"{what}: the function returned no row: check its filters and its source")
    keys = [_typed(frame, name, _ENTITY_TYPES, "entity column", what) for name in spec.entity]
    features = [_typed(frame, name, _FEATURE_TYPES, "feature", what) for name in names]
    found = pl.DataFrame([*keys, _event_time(frame, spec, what), *features])
    _check_nulls(found, [*spec.entity, spec.event_time], what)
    _check_numbers(found, names, what)
    return _sorted(found, spec, what)


def schema_for(frame: pl.DataFrame, spec: FeaturesSpec) -> Schema:
    """Return the schema of a shaped frame: keys and time are never null, features may be."""
    fixed = (*spec.entity, spec.event_time)
    return Schema(
        tuple(
            Column(name, from_polars(dtype), nullable=name not in fixed)
            for name, dtype in frame.schema.items()
        )
    )


def _check_columns(frame: pl.DataFrame, spec: FeaturesSpec, what: str) -> list[str]:
    wanted = (*spec.entity, spec.event_time)
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InvalidInput(
            f"{what}: the result lacks {', '.join(missing)}: it has {', '.join(frame.columns) or 'no column'}"
        )
    names = [name for name in frame.columns if name not in wanted]
    if not names:
        raise InvalidInput(
            f"{what}: the result holds no feature: return a column besides {', '.join(wanted)}"
        )
    odd = [name for name in names if name.startswith("_")]
    if odd:
        raise InvalidInput(f"{what}: feature {odd[0]!r} begins with _, which is taut's own: rename it")
    return names


def _typed(frame: pl.DataFrame, name: str, allowed: Sequence[DType], role: str, what: str) -> pl.Series:
    series = frame.get_column(name)
    if series.dtype == pl.Null:
        raise InvalidInput(f"{what}: {role} {name!r} is null everywhere and has no type: cast it")
    dtype = from_polars(series.dtype)
    if dtype not in allowed:
        raise InvalidInput(
            f"{what}: {role} {name!r} is {series.dtype}: make it one of {', '.join(allowed)}, for example an age in "
            "seconds rather than a time"
        )
    return _cast(series, TO_POLARS[dtype], name, what)


def _event_time(frame: pl.DataFrame, spec: FeaturesSpec, what: str) -> pl.Series:
    series = frame.get_column(spec.event_time)
    if not isinstance(series.dtype, pl.Datetime) or series.dtype.time_zone is None:
        raise InvalidInput(
            f"{what}: event time {spec.event_time!r} is {series.dtype}: make it a Datetime with a time zone"
        )
    if series.dtype.time_unit == "ns" and (series.dt.nanosecond() % 1000 != 0).any():
        # rounding down would let a value be used before it was true
        raise InvalidInput(
            f"{what}: event time {spec.event_time!r} has parts below a microsecond: round it up to microseconds"
        )
    return _cast(series, TO_POLARS[DType.DATETIME], spec.event_time, what)


def _cast(series: pl.Series, dtype: pl.DataType, name: str, what: str) -> pl.Series:
    try:
        return series.cast(dtype, strict=True)
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(
            f"{what}: column {name!r} does not fit {dtype}: {str(error)[:MESSAGE_MAX]}"
        ) from error


def _check_nulls(frame: pl.DataFrame, names: Sequence[str], what: str) -> None:
    for name in names:
        count = frame.get_column(name).null_count()
        if count:
            raise InvalidInput(f"{what}: {count} rows have no {name!r}: drop them, nothing could find them")


def _check_numbers(frame: pl.DataFrame, names: Sequence[str], what: str) -> None:
    for name in names:
        series = frame.get_column(name)
        if series.dtype == pl.Float64:
            count = series.len() - series.null_count() - int(series.is_finite().sum())
            if count:
                raise InvalidInput(
                    f"{what}: feature {name!r} has {count} NaN or infinite values: make them null or a number"
                )


def _sorted(frame: pl.DataFrame, spec: FeaturesSpec, what: str) -> pl.DataFrame:
    key = [*spec.entity, spec.event_time]
    ordered = frame.sort(key)
    same = ordered.select(
        pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in key)
    ).to_series()
    twice = ordered.filter(same.fill_null(False)).select(key)
    if twice.height:
        shown = "; ".join(str(row) for row in twice.head(_EXAMPLES).iter_rows())
        raise InvalidInput(
            f"{what}: {twice.height} rows repeat an entity and its event time ({shown}): aggregate them to one"
        )
    return ordered
