"""The job that runs a model for the first time, where it can harm nobody: its cost shows before control pays it."""

# ruff: noqa: ARG001 - every job function has the same four parameters
from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from taut.core.schema import ModelSignature
from taut.ports.jobs import JobContext
from taut.serving.runtime.score import score_rows
from taut.serving.runtime.session import load

_CHUNK_ROWS: Final = 10_000


def trial(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Load a model and score every row of the given Parquet files, as the gate and the gateways will.

    arguments: `signature`. inputs: `model`, and files of rows under any other names.
    Raises what loading and scoring raise; a model that takes too long or too much memory is ended from outside.
    """
    signature = msgspec.convert(arguments["signature"], ModelSignature)
    loaded = load(inputs["model"], signature)
    scored = 0
    for name in sorted(set(inputs) - {"model"}):
        frame = pl.read_parquet(inputs[name])
        for chunk in frame.iter_slices(_CHUNK_ROWS):
            score_rows(loaded, chunk.to_dicts())
        scored += frame.height
    return {"rows": scored}
