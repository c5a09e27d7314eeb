"""The binary tensor data extension of OIP v2: raw little-endian bytes to checked values, and outputs to raw bytes.

The wire format (row-major, no padding; BOOL one byte; BYTES elements after a length of four bytes) is that of Triton's
extension `binary_tensor_data`: https://docs.nvidia.com/deeplearning/triton-inference-server (protocol extensions).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType
from taut.serving.runtime.rows import INT_MAX, WANTED, Value, convert_value

_NUMPY: Final = {
    "BOOL": "u1", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "BF16": "<u2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_LENGTH: Final = struct.Struct("<I")
_PACKS: Final = {"FP64": "d", "INT64": "q"}


def packed_matrix(body: bytes, start: int, columns: Sequence[Column], rows: int) -> bytes:
    """Return `rows` rows of FP32 from `start` to the end of the body, as the model takes them.

    The caller has compared the sizes. Raises InvalidInput, naming row and column, for NaN and infinities.
    """
    packed = body[start:]
    values = np.frombuffer(packed, "<f4")
    # one pass without a temporary; a square that is not finite may be a number's that is, and is looked into
    if not math.isfinite(_square(values)):
        fine = np.isfinite(values)
        if not fine.all():
            index = int(np.flatnonzero(~fine)[0])
            _refuse(columns[index % len(columns)], index // len(columns), values[index])
    assert len(values) == rows * len(columns), "sizes are compared before"
    return packed


@np.errstate(over="ignore", invalid="ignore")
def _square(values: npt.NDArray[Any]) -> float:
    return float(values.dot(values))


def column_values(column: Column, datatype: str, data: memoryview, count: int) -> Sequence[Value]:
    """Return the `count` values of one tensor in the column's type, by the rules that JSON values are held to.

    Raises InvalidInput for bytes that are no `count` elements of the datatype, and, naming row and column, for values
    that the column does not take.
    """
    if datatype == "BYTES":
        texts = _texts(column, data, count)
        if column.dtype is DType.STRING:
            return texts
        return [convert_value(column, text, row) for row, text in enumerate(texts)]
    kind = np.dtype(_NUMPY[datatype])
    if len(data) != count * kind.itemsize:
        raise InvalidInput(
            f"tensor {column.name!r}: saw {len(data)} bytes, wanted {count * kind.itemsize} for {count} values of {datatype}"
        )
    array: npt.NDArray[Any] = np.frombuffer(data, kind)
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if column.dtype is DType.BOOL:
        _check(column, array, array <= 1)
        array = array.astype(np.bool_)
    elif column.dtype is DType.INT:
        if datatype == "UINT64":
            _check(column, array, array <= INT_MAX)
    else:
        _check(column, array, np.isfinite(array))
        array = array.astype(np.float64)
    values: list[Value] = array.tolist()
    return values


def _check(column: Column, array: npt.NDArray[Any], fine: npt.NDArray[np.bool_]) -> None:
    if not fine.all():
        row = int(np.flatnonzero(~fine)[0])
        _refuse(column, row, array[row])


def _refuse(column: Column, row: int, value: object) -> NoReturn:
    raise InvalidInput(f"row {row}, column {column.name!r}: saw {value}, wanted {WANTED[column.dtype]}")


def _texts(column: Column, data: memoryview, count: int) -> list[Value]:
    """Return BYTES elements as text: a length of four bytes before each. Exactly `count` must fill the data."""
    texts: list[Value] = []
    at, end = 0, len(data)
    for row in range(count):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= end else end + 1
        if at > end:
            raise InvalidInput(
                f"tensor {column.name!r}: its {end} bytes end within element {row} of {count}: send each after its "
                "length in 4 bytes, little-endian"
            )
        try:
            texts.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidInput(
                f"row {row}, column {column.name!r}: is no UTF-8, wanted {WANTED[column.dtype]}"
            ) from None
    if at != end:
        raise InvalidInput(f"tensor {column.name!r}: {end - at} bytes are left over after {count} elements")
    return texts


def pack(datatype: str, data: Sequence[Any]) -> bytes:
    """Return an output's values as raw bytes. datatype: one that outputs have (FP64, INT64, BOOL, BYTES)."""
    letter = _PACKS.get(datatype)
    if letter is not None:
        return struct.pack(f"<{len(data)}{letter}", *data)
    if datatype == "BOOL":
        return bytes(data)
    encoded = [text.encode() for text in data]
    return b"".join([part for text in encoded for part in (_LENGTH.pack(len(text)), text)])
