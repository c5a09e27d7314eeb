"""How a value becomes the bytes that are encrypted, and comes back with its type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from taut.core.errors import Corrupt, InvalidInput
from taut.core.frames import TO_POLARS, from_polars
from taut.core.schema import DType

TAGS: Final[dict[DType, str]] = {
    DType.STRING: "s",
    DType.INT: "i",
    DType.FLOAT: "f",
    DType.BOOL: "b",
    DType.DATE: "d",
    DType.DATETIME: "t",
}
_TYPES: Final = {tag: dtype for dtype, tag in TAGS.items()}


def to_plain(series: pl.Series) -> list[bytes | None]:
    """Return each value as a type tag and its text; null stays None. Raises InvalidInput on an unsupported type."""
    text = as_text(series)
    tag = TAGS[_dtype(series)]
    tagged = pl.select(pl.lit(tag) + text.rename("text")).to_series() if len(text) else text
    return tagged.cast(pl.Binary).to_list()


def as_text(series: pl.Series) -> pl.Series:
    """Return values as text that names each one exactly."""
    match _dtype(series):
        case DType.DATE:
            return series.cast(pl.Int32).cast(pl.String)
        case DType.DATETIME:
            return series.cast(pl.Datetime("us", "UTC")).cast(pl.Int64).cast(pl.String)
        case _:
            return series.cast(pl.String)


def subject_text(series: pl.Series) -> pl.Series:
    """Return the column that names persons as text. Raises InvalidInput unless it holds text or integers."""
    if series.dtype in (pl.String, pl.Null) or series.dtype.is_integer():
        return series.cast(pl.String)
    raise InvalidInput(
        f"subject column {series.name!r} is {series.dtype}: people are named by text or integers"
    )


def from_plain(values: Sequence[bytes | None], *, name: str, dtype: DType | None) -> pl.Series:
    """Return what `to_plain` was given.

    dtype: the type to return when no value tells; otherwise it must agree. Raises Corrupt when it does not.
    """
    tags = {value[:1].decode("latin-1") for value in values if value is not None}
    found = {_TYPES.get(tag) for tag in tags} or {dtype or DType.STRING}
    if len(found) > 1 or (dtype is not None and found != {dtype}):
        kinds = ", ".join(sorted(str(kind) for kind in found))
        raise Corrupt(
            f"sealed column {name!r} holds values of type {kinds}, not {dtype or 'one type'}: restore it"
        )
    kind = found.pop()
    if kind is None:
        raise Corrupt(
            f"sealed column {name!r} holds a value of an unknown type: read it with the version that wrote it"
        )
    raw = pl.Series(name, [None if value is None else value[1:] for value in values], dtype=pl.Binary)
    try:
        return _parse(raw.cast(pl.String), kind)
    except pl.exceptions.PolarsError as error:
        raise Corrupt(f"sealed column {name!r} does not hold {kind} values: restore it") from error


def _parse(text: pl.Series, kind: DType) -> pl.Series:
    match kind:
        case DType.BOOL:
            return text == "true"
        case DType.DATE:
            return text.cast(pl.Int32, strict=True).cast(pl.Date)
        case DType.DATETIME:
            return text.cast(pl.Int64, strict=True).cast(pl.Datetime("us", "UTC"))
        case _:
            return text.cast(TO_POLARS[kind], strict=True)


def _dtype(series: pl.Series) -> DType:
    if series.dtype == pl.Null:
        return DType.STRING
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None:
        raise InvalidInput(f"column {series.name!r} has times without a zone: give them one, for example UTC")
    return from_polars(series.dtype)
