"""A chunk through a graph: columns of values in, one tensor out, rows that any node fails on without an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput, Unavailable
from taut.core.schema import DType
from taut.serving.runtime import LoadedGraph, Value

Array = npt.NDArray[Any]
RUN_ROWS: Final = 8192


def score_chunk(graph: LoadedGraph, path: Path) -> Array:
    """Return the answers to a chunk of Arrow, NaN where there is none.

    Nothing is left out here: a batch has no header that could say so, and no hurry.
    """
    frame = pl.read_ipc(path)
    signature = graph.signature
    width = len(signature.classes) if signature.output == "probability" else 1
    columns = {
        item.column.name: _values(frame.get_column(item.column.name), item.column.dtype)
        for item in signature.inputs
    }
    found = np.full((frame.height, width), np.nan)
    for at in range(0, frame.height, RUN_ROWS):
        _score(graph, columns, found, at, min(at + RUN_ROWS, frame.height))
    return found


def _values(series: pl.Series, dtype: DType) -> list[Value]:
    return series.cast(pl.Float64).to_list() if dtype is DType.FLOAT else series.to_list()


def _score(
    graph: LoadedGraph, columns: Mapping[str, Sequence[Value]], found: Array, low: int, high: int
) -> None:
    """Answer rows `low` to `high`; where a node fails, halves of them, down to the rows that it fails on."""
    try:
        outcome = graph.outcome({name: values[low:high] for name, values in columns.items()}, high - low)
    except (Unavailable, InvalidInput):
        outcome = None
    if outcome is not None and not outcome.without:
        said = outcome.outputs.probabilities or outcome.outputs.values
        found[low:high] = np.asarray(said, dtype=np.float64).reshape(high - low, -1)
    elif high - low > 1:
        middle = (low + high) // 2
        _score(graph, columns, found, low, middle)
        _score(graph, columns, found, middle, high)
