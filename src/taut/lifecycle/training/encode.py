"""Columns as a model gets them: tensors for ONNX, and what the estimator itself was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType

Tensor = Literal["columns", "matrix"]
MATRIX: Final = "input"
"""Name of the one tensor of a matrix model, see `ModelSignature.tensor`."""

_INPUTS: Final = (DType.BOOL, DType.INT, DType.FLOAT, DType.STRING)


def check_inputs(columns: Sequence[Column]) -> None:
    """Raise InvalidInput for a type that no model takes."""
    for column in columns:
        if column.dtype not in _INPUTS:
            raise InvalidInput(
                f"input {column.name!r} is a {column.dtype}: derive numbers from it in a feature or a request column"
            )


def serving_form(frame: pl.LazyFrame, columns: Sequence[Column]) -> pl.LazyFrame:
    """Return the frame as every model gets it: absent strings are empty, floats are numbers that FP32 can hold.

    So a tree that is fitted on it splits between values that serving can tell apart, and converts faithfully.
    """
    words = [column.name for column in columns if column.dtype is DType.STRING]
    numbers = [column.name for column in columns if column.dtype is DType.FLOAT]
    return frame.with_columns(
        *(pl.col(name).fill_null("") for name in words),
        *(pl.col(name).cast(pl.Float32).cast(pl.Float64) for name in numbers),
    )


def is_float(column: Column) -> bool:
    """Return whether a column travels as FP32: integers do where null is legal, since only floats have a NaN."""
    return column.dtype in (DType.FLOAT, DType.BOOL) or (column.dtype is DType.INT and column.nullable)


def feed(frame: pl.DataFrame, columns: Sequence[Column], tensor: Tensor) -> dict[str, npt.NDArray[Any]]:
    """Return ONNX inputs for the rows of a frame: null numbers as NaN, absent strings as empty ones."""
    if tensor == "matrix":
        wide = [_floats(frame[column.name]) for column in columns]
        return {MATRIX: np.stack(wide, axis=1)}
    made: dict[str, npt.NDArray[Any]] = {}
    for column in columns:
        series = frame[column.name]
        if column.dtype is DType.STRING:
            made[column.name] = np.array(series.fill_null("").to_list(), dtype=object).reshape(-1, 1)
        elif is_float(column):
            made[column.name] = _floats(series).reshape(-1, 1)
        else:
            made[column.name] = series.cast(pl.Int64).to_numpy().reshape(-1, 1)
    return made


def _floats(series: pl.Series) -> npt.NDArray[np.float32]:
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float32)
