"""Scoring rows as a request would be: what the parity gate of a model compares with training."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelSignature
from taut.core.times import from_us
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.rows import WANTED, RowDecoder, Value

_EPOCH: Final = dt.date(1970, 1, 1)


def feature_value(column: Column, value: object) -> Value:
    """Return a stored feature's value as the model's input column takes it; NaN is null.

    value: a scalar of the online store. Dates are ISO text or days since 1970-01-01, times ISO text or microseconds
    since then.
    Raises InvalidInput, saying what was seen and what is wanted.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    found = _CONVERT[column.dtype](value)
    if found is None:
        raise InvalidInput(f"feature {column.name!r}: saw {value!r:.60}, wanted {WANTED[column.dtype]}")
    return found


def _bool(value: object) -> Value:
    return value if isinstance(value, bool) else None


def _int(value: object) -> Value:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: object) -> Value:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _string(value: object) -> Value:
    return value if isinstance(value, str) else None


def _date(value: object) -> Value:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return _EPOCH + dt.timedelta(days=value)
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return value
        return dt.date.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _datetime(value: object) -> Value:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return from_us(value)
        found = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return None
    return found if isinstance(found, dt.datetime) and found.tzinfo is not None else None


_CONVERT: Final = {
    DType.BOOL: _bool, DType.INT: _int, DType.FLOAT: _float,
    DType.STRING: _string, DType.DATE: _date, DType.DATETIME: _datetime,
}  # fmt: skip


class Scored(Protocol):
    """A model or a graph of models in this process."""

    @property
    def signature(self) -> ModelSignature: ...

    def infer(self, columns: Mapping[str, Sequence[Value]]) -> Outputs: ...


def score_rows(model: Scored, rows: Sequence[Mapping[str, object]]) -> Outputs:
    """Score rows through the very path of a request: JSON, typed decoding, features, tensors, response gate.

    rows: request columns and feature values by name; a float NaN means null. Other keys are ignored, the event time
    too: it chooses features, which are given here, and in training it may be a day.
    Raises InvalidInput, naming row and column, where a request would be refused.
    """
    signature = model.signature
    request = [column.name for column in signature.request]
    given = [name for name in request if name != signature.event_time]
    sent = [{name: _null(row[name]) for name in given if name in row} for row in rows]
    decoded = RowDecoder(signature.request, max_rows=max(1, len(rows))).check(sent)
    columns: dict[str, Sequence[Value]] = dict(zip(request, zip(*decoded, strict=True), strict=True))
    for item in signature.inputs:
        if item.feature_set is None:
            continue
        values = [feature_value(item.column, row.get(item.column.name)) for row in rows]
        if None in values and not item.column.nullable:
            raise InvalidInput(
                f"row {values.index(None)}, feature {item.column.name!r}: is missing and not nullable"
            )
        columns[item.column.name] = values
    return model.infer(columns)


def _null(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
