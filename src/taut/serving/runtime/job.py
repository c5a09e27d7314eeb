"""The job that runs a model for the gate, where it can harm nobody: its answers and its cost are measured there."""

# ruff: noqa: ARG001 - every job function has the same four parameters
from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.answers import write_answer
from taut.core.attribution import attribute
from taut.core.probes import Probe, answers_to
from taut.core.schema import ModelSignature
from taut.ports.jobs import JobContext
from taut.serving.runtime.code import load_apart
from taut.serving.runtime.graph import load_graph
from taut.serving.runtime.graph_trial import reference
from taut.serving.runtime.score import Scored, score_rows

_CHUNK_ROWS: Final = 10_000
_TIMED: Final = 5


def trial(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Load a model and score every row of the given Parquet files, as the gateways will.

    arguments: `signature`; `probes`, by which rows of `rows-0` are changed and asked about too. inputs: `model`, and files of
    rows under any other names. Leaves `NAME.npy` of each, and `probe-0.npy` …: the probabilities `[n, classes]`, or the values
    `[n]`. Returns the rows, and the milliseconds of one.
    Raises what loading and scoring raise; a model that takes too long or too much memory is ended from outside.
    """
    signature = msgspec.convert(arguments["signature"], ModelSignature)
    loaded = load_apart(inputs["model"], signature)
    scored, latency_ms = 0, 0.0
    for name in sorted(set(inputs) - {"model"}):
        frame = pl.read_parquet(inputs[name])
        answers = [_answers(loaded, chunk) for chunk in frame.iter_slices(_CHUNK_ROWS)]
        write_answer(output / f"{name}.npy", np.concatenate(answers) if answers else np.empty(0))
        scored += frame.height
        latency_ms = latency_ms or _latency_ms(loaded, frame.head(1))
    probes = msgspec.convert(arguments.get("probes", []), tuple[Probe, ...])
    rows = pl.read_parquet(inputs["rows-0"]) if probes else pl.DataFrame()
    for at, probe in enumerate(probes):
        said = answers_to(probe, rows, signature, partial(_answers, loaded), seed=context.seed)
        write_answer(output / f"probe-{at}.npy", said)
    return {"rows": scored, "latency_ms": latency_ms}


def _answers(loaded: Scored, rows: pl.DataFrame) -> npt.NDArray[Any]:
    outputs = score_rows(loaded, rows.to_dicts())
    said = outputs.probabilities if loaded.signature.output == "probability" else outputs.values
    return np.asarray(said, dtype=np.float64)


def _latency_ms(loaded: Scored, row: pl.DataFrame) -> float:
    """Return what one row takes from JSON to outputs, the best of a few: a figure for people, not a limit."""
    if row.height == 0:
        return 0.0
    times = []
    for _ in range(_TIMED):
        began_s = time.perf_counter()
        _answers(loaded, row)
        times.append(time.perf_counter() - began_s)
    return round(min(times) * 1000, 3)


def explain(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Return what moved the answer to one row, as `Attribution`: of a probability, a value.

    arguments: `signature`, and `of`, the class whose probability it is. inputs: `model`, `row` and `background`, Parquet.
    """
    signature = msgspec.convert(arguments["signature"], ModelSignature)
    loaded = load_apart(inputs["model"], signature)
    row, background = pl.read_parquet(inputs["row"]), pl.read_parquet(inputs["background"])
    of = msgspec.convert(arguments["of"], int)

    def ask(rows: pl.DataFrame) -> npt.NDArray[Any]:
        said = _answers(loaded, rows)
        return said[:, of] if said.ndim == 2 else said

    names = [item.column.name for item in signature.inputs]
    found = attribute(ask, row, background, names, seed=context.seed)
    return dict(msgspec.to_builtins(found))


def compose(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Score the rows of Parquet files `rows-0`, `rows-1` … by a graph, as gateways will, and leave an answer a file.

    inputs: `plan`, and `node-NAME` for the artifact of each node. With the argument `reference`, what the nodes say by
    themselves is left too, put together by other code: `graph-0.npy`, `reference-0.npy` …
    Returns `latency_ms` of one row. Raises what loading and scoring raise.
    """
    artifacts = {
        name.removeprefix("node-"): path.read_bytes()
        for name, path in inputs.items()
        if name.startswith("node-")
    }
    graph = load_graph(inputs["plan"].read_bytes(), artifacts, load=load_apart)
    latency_ms = 0.0
    for name in sorted(name for name in inputs if name.startswith("rows-")):
        frame, number = pl.read_parquet(inputs[name]), name.removeprefix("rows-")
        chunks = list(frame.iter_slices(_CHUNK_ROWS))
        write_answer(
            output / f"graph-{number}.npy", np.concatenate([_answers(graph, chunk) for chunk in chunks])
        )
        if arguments.get("reference"):
            found = [reference(graph.plan, graph.models, chunk.to_dicts()) for chunk in chunks]
            write_answer(output / f"reference-{number}.npy", np.concatenate(found))
        latency_ms = latency_ms or _latency_ms(graph, frame.head(1))
    return {"latency_ms": latency_ms}
