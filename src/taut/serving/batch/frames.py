"""Columns to tensors, a whole column at a time; value for value as a request's become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.schema import Column, DType, ModelSignature
from taut.serving.runtime import Feed, LoadedModel

Array = npt.NDArray[Any]

_PART: Final = ".part"
_NUMPY: Final[dict[str, Any]] = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
}  # fmt: skip


def write_chunk(path: Path, frame: pl.DataFrame, signature: ModelSignature) -> None:
    """Write the model's inputs of a frame's rows, which must fit (`Needs.split`).

    A matrix model's chunk is its tensor, ready to be run; any other's is Arrow, since its tensors are the session's.
    """
    columns = [item.column for item in signature.inputs]
    part = path.with_suffix(_PART)
    if signature.tensor == "matrix":
        with part.open("wb") as file:
            np.save(file, matrix(frame, columns), allow_pickle=False)
    else:
        wide = [pl.col(column.name).cast(pl.Float64) for column in columns if column.dtype is DType.FLOAT]
        frame.select(column.name for column in columns).with_columns(wide).write_ipc(part)
    part.rename(path)


def matrix(frame: pl.DataFrame, columns: Sequence[Column]) -> npt.NDArray[np.float32]:
    """Return the FP32 tensor `[rows, columns]`, value for value what `taut.serving.runtime.Matrix` makes of them."""
    made = np.empty((frame.height, len(columns)), dtype=np.float32)
    for at, column in enumerate(columns):
        made[:, at] = _narrow(frame.get_column(column.name), column.dtype)
    return made


def _narrow(series: pl.Series, dtype: DType) -> npt.NDArray[np.float32]:
    if dtype is DType.DATE:
        series = series.to_physical()
    # by way of FP64, as a request's integers go: rounded twice they would differ in the last bit
    return series.cast(pl.Float64).fill_null(float("nan")).cast(pl.Float32).to_numpy()


def read_tensors(model: LoadedModel, path: Path) -> tuple[Feed, npt.NDArray[np.bool_]]:
    """Return the tensors of a chunk for a model with one input a column, and the rows that do not fit their types."""
    frame = pl.read_ipc(path)
    feed: Feed = {}
    unfit = np.zeros(frame.height, dtype=np.bool_)
    for item in model.signature.inputs:
        kind, rank = model.tensors[item.column.name]
        made, beyond = _MAKERS.get(kind, _numbers)(frame.get_column(item.column.name), item.column, kind)
        unfit |= beyond
        feed[item.column.name] = made.reshape((-1, 1) if rank == 2 else (-1,))
    return feed, unfit


def _texts(series: pl.Series, _column: Column, _kind: str) -> tuple[Array, Any]:
    return np.array(series.fill_null("").to_list(), dtype=object), False


def _booleans(series: pl.Series, _column: Column, _kind: str) -> tuple[Array, Any]:
    return series.to_numpy().astype(np.bool_), False


def _numbers(series: pl.Series, column: Column, kind: str) -> tuple[Array, Any]:
    dtype = _NUMPY[kind]
    if column.dtype in (DType.DATE, DType.DATETIME):
        series = series.to_physical()
    if np.issubdtype(dtype, np.integer):
        whole = series.cast(pl.Int64).to_numpy()
        made = whole.astype(dtype)
        return made, made != whole
    wide = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    return narrow, np.isinf(narrow)


_MAKERS: Final[dict[str, Callable[[pl.Series, Column, str], tuple[Array, Any]]]] = {
    "tensor(string)": _texts, "tensor(bool)": _booleans,
}  # fmt: skip
