"""Answers as files: what a process that ran a model leaves for one that did not, read without belief."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput

_PART: Final = ".part"
_WIDTH_MAX: Final = 10_000
_HEADER_MAX: Final = 1024
_KINDS: Final = (np.dtype("<f4"), np.dtype("<f8"))


def write_answer(path: Path, tensor: npt.NDArray[Any]) -> None:
    """Write a tensor so that the file appears whole or not at all."""
    part = path.with_suffix(_PART)
    with part.open("wb") as file:
        np.save(file, np.ascontiguousarray(tensor), allow_pickle=False)
    part.rename(path)


def read_answer(path: Path, rows: int) -> npt.NDArray[Any]:
    """Return what was left, `[rows]` or `[rows, columns]` of FP32 or FP64.

    No more memory is taken than the file has bytes, no link is followed and nothing waited for, whoever wrote it.
    Raises InvalidInput for anything else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no plain file")
            return _read(file, status.st_size, rows)
    except (OSError, ValueError, EOFError, SyntaxError, RecursionError) as error:
        raise InvalidInput(
            f"the job left no readable answers for {rows:,} rows: {str(error)[:200]}"
        ) from error


def _read(file: Any, size: int, rows: int) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"its format is {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER_MAX)
    if dtype not in _KINDS or fortran or shape[:1] != (rows,) or len(shape) > 2:
        raise ValueError(f"{dtype} of shape {shape} are no answers")
    width = shape[1] if len(shape) == 2 else 1
    if not 0 < width <= _WIDTH_MAX or size - file.tell() != rows * width * dtype.itemsize:
        raise ValueError(f"it is not as long as its shape {shape} says")
    data = file.read(rows * width * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape)  # shorter than it was a moment ago: ValueError
