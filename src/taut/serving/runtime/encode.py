"""Columns to tensors: the one place where a value of a request becomes a number of a model."""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelInput
from taut.core.times import to_us
from taut.serving.runtime.rows import Value

Feed = dict[str, npt.NDArray[Any]]
"""Tensors by input name, as the session takes them."""

_EPOCH: Final = dt.date(1970, 1, 1)
_NAN: Final = math.nan
_PACKED_ROWS: Final = 64
_FP32: Final = np.dtype("<f4")
MATRIX: Final = "input"

_FLOATS: Final = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_INTS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
ACCEPTED: Final[dict[DType, frozenset[str]]] = {
    DType.BOOL: frozenset({"tensor(bool)", *_FLOATS, *_INTS}),
    DType.INT: frozenset({*_FLOATS, *_INTS}),
    DType.FLOAT: frozenset(_FLOATS),
    DType.STRING: frozenset({"tensor(string)"}),
    DType.DATE: frozenset({"tensor(int64)", *_FLOATS}),
    DType.DATETIME: frozenset({"tensor(int64)", "tensor(double)"}),
}
"""Tensor types that can carry a column. Dates are days since 1970-01-01, times are microseconds since then, UTC."""


class Matrix:
    """Makes the one FP32 tensor `input` of a matrix model.

    Null becomes NaN, booleans 0 and 1, dates days since 1970-01-01. Methods raise InvalidInput for a value that FP32
    cannot hold, naming row and column.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns: Final = tuple(columns)
        self._width: Final = len(columns)
        self._plain: Final = all(column.dtype.numeric and not column.nullable for column in columns)
        self._packers: Final = [struct.Struct(f"<{self._width * rows}f") for rows in range(_PACKED_ROWS + 1)]

    def encode(self, rows: Sequence[Sequence[Value]]) -> Feed:
        """Return the tensor of rows, each with its values in the order of the columns."""
        if not self._plain:
            rows = [[_number(value) for value in row] for row in rows]
        flat = rows[0] if len(rows) == 1 else [value for row in rows for value in row]
        return self.feed(self.pack(flat), len(rows))

    def pack(self, flat: Sequence[Value]) -> bytes:
        """Return numbers in row-major order as FP32 little-endian."""
        rows = len(flat) // self._width
        if rows <= _PACKED_ROWS:
            try:
                return self._packers[rows].pack(*flat)
            except (OverflowError, struct.error):
                raise self._beyond(flat) from None
        with np.errstate(over="ignore"):
            narrow = np.array(flat, dtype=np.float64).astype(np.float32)
        if np.isinf(narrow).any():
            raise self._beyond(flat)
        return narrow.tobytes()

    def feed(self, packed: bytes, rows: int) -> Feed:
        return {MATRIX: np.ndarray((rows, self._width), _FP32, packed)}

    def _beyond(self, flat: Sequence[Value]) -> InvalidInput:
        width = self._width
        return _too_large(self._columns, [flat[at : at + width] for at in range(0, len(flat), width)])


def columns_encoder(
    inputs: Sequence[ModelInput], tensors: Mapping[str, tuple[str, int]]
) -> Callable[[Sequence[Sequence[Value]]], Feed]:
    """Return a function from columns (lists of values, in the order of the model's inputs) to a tensor each.

    tensors: input name -> (tensor type, rank). Null becomes NaN in a float tensor and the empty string in a string
    tensor; no other tensor has a null (`load` refuses such a model).
    """
    makers = [_maker(item.column, *tensors[item.column.name]) for item in inputs]
    names = [item.column.name for item in inputs]

    def encode(columns: Sequence[Sequence[Value]]) -> Feed:
        return {name: make(values) for name, make, values in zip(names, makers, columns, strict=True)}

    return encode


def _maker(column: Column, kind: str, rank: int) -> Callable[[Sequence[Value]], npt.NDArray[Any]]:
    shape = (-1, 1) if rank == 2 else (-1,)
    if kind == "tensor(string)":
        return lambda values: np.array([value or "" for value in values], dtype=object).reshape(shape)
    if kind in _FLOATS:
        dtype = _FLOATS[kind]
        return lambda values: _floats(column, values, dtype).reshape(shape)
    if kind in _INTS:
        return lambda values: _ints(column, values, _INTS[kind]).reshape(shape)
    return lambda values: np.array(values, dtype=np.bool_).reshape(shape)


def _floats(column: Column, values: Sequence[Value], dtype: Any) -> npt.NDArray[Any]:
    wide = np.array([_number(value, unit_us=True) for value in values], dtype=np.float64)
    with np.errstate(over="ignore"):
        made = wide.astype(dtype)
    if np.isinf(made).any():
        raise _too_large([column], [[value] for value in values])
    return made


def _ints(column: Column, values: Sequence[Value], dtype: Any) -> npt.NDArray[Any]:
    try:
        return np.array([_number(value, unit_us=True) for value in values], dtype=dtype)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"column {column.name!r}: {error}") from None


def _number(value: Value, *, unit_us: bool = False) -> float | int:
    if value is None:
        return _NAN
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dt.datetime):
        return to_us(value) if unit_us else to_us(value) / 1e6
    if isinstance(value, dt.date):
        return (value - _EPOCH).days
    raise InvalidInput(f"{value[:60]!r} is no number")


def _too_large(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> InvalidInput:
    for index, row in enumerate(rows):
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, int | float) and abs(value) > 3.4028235e38:
                said = f"saw {value:.6g}, wanted a number that FP32 can hold (up to 3.4e38)"
                return InvalidInput(f"row {index}, column {column.name!r}: {said}")
    return InvalidInput("a value is beyond what FP32 can hold (3.4e38)")
