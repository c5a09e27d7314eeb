"""The job that scores: chunks of tensors in, tensors out, nothing else. It knows no row, no key and no column's history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.answers import write_answer
from taut.core.schema import ModelSignature
from taut.ports.jobs import JobContext
from taut.serving.batch.chunks import CHUNKS, MODEL, NODE, STOP, answer_path, chunk_path
from taut.serving.errors import BadAnswer
from taut.serving.runtime import Feed, LoadedModel, load_graph
from taut.serving.runtime.code import load_apart
from taut.serving.runtime.encode import MATRIX

RUN_ROWS: Final = 8192
"""Rows of one call of the model: what its inputs and outputs take stays in the processor's cache."""

_POLL_S: Final = 0.002
_PATIENCE_S: Final = 600.0

Array = npt.NDArray[Any]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the job. numbers: the chunks, in the order in which they come."""

    signature: ModelSignature
    numbers: tuple[int, ...]


def score(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Score the chunks of the folder `chunks` with `model`, of a graph with its nodes' `node-NAME` too, leaving an answer a chunk, and say which are done.

    Chunks may be written while the job runs; it ends early when the folder holds `stop`, or none came for ten minutes.
    A row that the model fails on is NaN in its answer: the others of its chunk are scored.
    """
    work = msgspec.convert(arguments, Work)
    scored = _scoring(inputs, work.signature)
    done = 0
    for number, path in _arriving(inputs[CHUNKS], work.numbers):
        write_answer(answer_path(output, number), scored(path))
        done += 1
        context.progress(str(number), done / len(work.numbers))
    return {"chunks": done}


def _scoring(inputs: dict[str, Path], signature: ModelSignature) -> Callable[[Path], Array]:
    """Load what scores, and return what answers a chunk."""
    if signature.form != "graph":
        model = load_apart(inputs[MODEL], signature)
        return lambda path: _scored(model, path)
    from taut.serving.batch.graph import score_chunk  # with Polars, as below

    artifacts = {
        name.removeprefix(NODE): path.read_bytes() for name, path in inputs.items() if name.startswith(NODE)
    }
    graph = load_graph(inputs[MODEL].read_bytes(), artifacts, load=load_apart)
    return lambda path: score_chunk(graph, path)


def _arriving(folder: Path, numbers: Sequence[int]) -> Iterator[tuple[int, Path]]:
    """Yield the chunks in their order, each as soon as it is there."""
    stop = folder / STOP
    for number in numbers:
        path = chunk_path(folder, number)
        give_up_s = time.monotonic() + _PATIENCE_S
        while not path.exists():
            if (stop.exists() and not path.exists()) or time.monotonic() > give_up_s:
                return
            time.sleep(_POLL_S)
        yield number, path


def _scored(model: LoadedModel, path: Path) -> Array:
    if model.row_major:
        chunk = np.load(path, allow_pickle=False)
        return run_all(model, {MATRIX: chunk}, len(chunk))
    from taut.serving.batch.frames import (
        read_tensors,
    )  # Polars is slow to import, and a matrix needs none of it

    feed, unfit = read_tensors(model, path)
    found = run_all(model, feed, len(unfit))
    if unfit.any():
        found = found.astype(np.float64)
        found[unfit] = np.nan
    return found


def run_all(model: LoadedModel, feed: Feed, rows: int) -> Array:
    """Run every row and return the answers, NaN for rows that the model raises on."""
    parts = [_run(model, feed, at, min(at + RUN_ROWS, rows)) for at in range(0, rows, RUN_ROWS)]
    return _joined(parts) if parts else np.empty(0, dtype=np.float32)


def _run(model: LoadedModel, feed: Feed, low: int, high: int) -> Array:
    """Run rows `low` to `high`; where the model raises, halves of them, down to the rows that it raises on."""
    try:
        return model.raw({name: tensor[low:high] for name, tensor in feed.items()})
    except BadAnswer:
        if high - low == 1:
            return np.full(1, np.nan, dtype=np.float32)
    middle = (low + high) // 2
    return _joined([_run(model, feed, low, middle), _run(model, feed, middle, high)])


def _joined(parts: Sequence[Array]) -> Array:
    """Put parts one after another; where some have columns, a part without is that of rows without an answer."""
    width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    return np.concatenate(
        [
            part if part.ndim == 2 or not width else np.broadcast_to(part[:, None], (len(part), width))
            for part in parts
        ]
    )
