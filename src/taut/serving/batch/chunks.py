"""Chunks on their way to the job and answers on their way back: files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelSignature

CHUNKS: Final = "chunks"
MODEL: Final = "model"
STOP: Final = "stop"
"""Names of the job's inputs, and of the file that says that no further chunk will come."""

_PART: Final = ".part"


def chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.chunk"


def answer_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npy"


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


def read_chunk(path: Path, signature: ModelSignature) -> npt.NDArray[np.float32] | pl.DataFrame:
    if signature.tensor == "matrix":
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]  # an array of what `write_chunk` wrote
    return pl.read_ipc(path)


def write_answer(path: Path, tensor: npt.NDArray[Any]) -> None:
    part = path.with_suffix(_PART)
    with part.open("wb") as file:
        np.save(file, tensor, allow_pickle=False)
    part.rename(path)


def read_answer(path: Path, rows: int) -> npt.NDArray[Any]:
    """Return what the job left for a chunk. Raises InvalidInput for anything else than numbers, a row each."""
    try:
        tensor: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"the job left no readable answer for a chunk: {error}") from error
    if tensor.dtype.kind != "f" or tensor.shape[:1] != (rows,) or tensor.ndim > 2:
        raise InvalidInput(
            f"the job left {tensor.dtype} of shape {tensor.shape} for {rows:,} rows: these are no answers"
        )
    return tensor
