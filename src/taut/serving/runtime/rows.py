"""Rows of a request: decoded by a type made from the signature, and explained value by value when that fails."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType
from taut.serving.errors import Malformed, TooLarge

Value = bool | int | float | str | dt.date | dt.datetime | None
"""One value of one column as the gateway holds it; null is None."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
MAX_FAULTS: Final = 16

JSON_TYPES: Final[dict[DType, Any]] = {
    DType.BOOL: bool,
    DType.INT: Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)],
    DType.FLOAT: float,
    DType.STRING: str,
    DType.DATE: dt.date,
    DType.DATETIME: Annotated[dt.datetime, msgspec.Meta(tz=True)],
}
WANTED: Final[dict[DType, str]] = {
    DType.BOOL: "true or false",
    DType.INT: "a whole number of at most 64 bits",
    DType.FLOAT: "a finite number",
    DType.STRING: "a string",
    DType.DATE: "a date such as 2013-07-01",
    DType.DATETIME: "a time with its zone such as 2013-07-01T06:00:00Z",
}


class RowDecoder:
    """Decodes `{"instances": [row, …]}` of one signature, in C, to tuples in the order of the request columns.

    columns: the request columns. A nullable one may be absent, which means null.
    max_rows: more rows are refused as TooLarge.
    """

    def __init__(self, columns: Sequence[Column], *, max_rows: int = 10_000) -> None:
        self.columns: Final = tuple(columns)
        self.max_rows: Final = max_rows
        self._names: Final = {column.name: column for column in columns}
        fields = [_field(index, column) for index, column in enumerate(columns)]
        row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False, kw_only=True)
        body = msgspec.defstruct("Body", [("instances", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]  # made at run time
        self._decode: Final = msgspec.json.Decoder(body).decode
        self._decode_any: Final = msgspec.json.Decoder().decode
        self._tuple: Final = msgspec.structs.astuple

    def decode(self, body: bytes) -> list[tuple[Value, ...]]:
        """Return the rows of a request's body, one or more.

        Raises Malformed for what is no such document; TooLarge beyond `max_rows`; InvalidInput, naming row, column,
        what was seen and what is wanted, for a row against the signature.
        """
        try:
            rows: list[msgspec.Struct] = getattr(self._decode(body), "instances")  # noqa: B009 - a type made at run time
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self._explain(body) from None
        if not rows:
            raise InvalidInput("instances is empty: send at least one row")
        if len(rows) > self.max_rows:
            raise TooLarge(f"{len(rows)} rows are too many for one request: send at most {self.max_rows}")
        return list(map(self._tuple, rows))

    def check(self, rows: Sequence[object]) -> list[tuple[Value, ...]]:
        """Return already decoded rows (objects) as tuples by the very same types; see `decode`."""
        return self.decode(msgspec.json.encode({"instances": rows}))

    def _explain(self, body: bytes) -> InvalidInput:
        """Say what is wrong with a body that did not decode."""
        try:
            document = self._decode_any(body)
        except RecursionError:
            return Malformed("the JSON is nested too deeply: send a flat object a row")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if "out of range" in str(error):
                return InvalidInput(f"{error}: send finite numbers that a 64-bit float can hold")
            return Malformed(f"the body is no JSON: {error}")
        if not isinstance(document, dict):
            return Malformed('the body must be an object: {"instances": [{column: value}]}')
        extra = [name for name in document if name != "instances"]
        if extra or "instances" not in document:
            said = f"field {extra[0][:80]!r} is unknown" if extra else "field 'instances' is missing"
            return Malformed(f'{said}: send {{"instances": [{{column: value}}]}}')
        rows = document["instances"]
        if not isinstance(rows, list):
            return Malformed(f"instances is {_seen(rows)}: send a list of rows")
        if len(rows) > self.max_rows:
            return TooLarge(f"{len(rows)} rows are too many for one request: send at most {self.max_rows}")
        faults: list[str] = []
        for index, row in enumerate(rows):
            faults += self._row_faults(index, row)
            if len(faults) > MAX_FAULTS:
                break
        return InvalidInput("; ".join(faults[:MAX_FAULTS]) or "the rows do not fit the signature")

    def _row_faults(self, index: int, row: object) -> list[str]:
        if not isinstance(row, dict):
            return [f"row {index}: saw {_seen(row)}, wanted an object of column: value"]
        faults = [
            f"row {index}: {unknown_column(name, self._names)}" for name in row if name not in self._names
        ]
        for column in self.columns:
            if column.name not in row:
                if not column.nullable:
                    faults.append(
                        f"row {index}, column {column.name!r}: is missing, wanted {WANTED[column.dtype]}"
                    )
                continue
            fault = value_fault(column, row[column.name])
            if fault:
                faults.append(f"row {index}, column {column.name!r}: {fault}")
        return faults


def _field(index: int, column: Column) -> tuple[str, Any, Any]:
    kind = JSON_TYPES[column.dtype]
    if column.nullable:
        return f"f{index}", kind | None, msgspec.field(name=column.name, default=None)
    return f"f{index}", kind, msgspec.field(name=column.name)


def unknown_column(name: object, known: Sequence[str] | dict[str, Column]) -> str:
    """Return what to say about a column that the signature does not have, with the nearest that it has."""
    near = get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"wanted {', '.join(list(known)[:20])}"
    return f"column {str(name)[:80]!r} is unknown: {hint}"


def convert_value(column: Column, value: object, row: int) -> Value:
    """Return a decoded JSON value as the column's type. Raises InvalidInput, naming row and column."""
    kind = type(value)
    if (kind is float and column.dtype is DType.FLOAT) or (kind is str and column.dtype is DType.STRING):
        return value  # type: ignore[return-value]  # the two commonest, narrowed by the comparison
    fault = value_fault(column, value)
    if fault:
        raise InvalidInput(f"row {row}, column {column.name!r}: {fault}")
    return None if value is None else msgspec.convert(value, JSON_TYPES[column.dtype])


def value_fault(column: Column, value: object) -> str:
    """Return what is wrong with a decoded JSON value for a column, or an empty string."""
    wanted = WANTED[column.dtype]
    if value is None:
        return "" if column.nullable else f"saw null, wanted {wanted}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"saw {value}, wanted {wanted}"
    try:
        msgspec.convert(value, JSON_TYPES[column.dtype])
    except msgspec.ValidationError:
        return f"saw {_seen(value)}, wanted {wanted}"
    return ""


def _seen(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "the string", bool: "the boolean", type(None): "null"}
    kind = kinds.get(type(value), "the number")
    if isinstance(value, dict | list) or value is None:
        return kind
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return f"{kind} {text[:60]}{'…' if len(text) > 60 else ''}"
