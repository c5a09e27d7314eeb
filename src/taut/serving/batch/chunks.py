"""Chunks on their way to the job and answers on their way back: files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput

CHUNKS: Final = "chunks"
MODEL: Final = "model"
STOP: Final = "stop"
"""Names of the job's inputs, and of the file that says that no further chunk will come."""

_PART: Final = ".part"


def chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.chunk"


def answer_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npy"


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
