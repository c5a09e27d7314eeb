"""Runs a feature function as a job: files in, a checked frame out, every way of failing named by its remedy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from taut.core.errors import Exhausted, InvalidInput, TautError, Unavailable
from taut.core.room import room_for
from taut.lifecycle.features import job
from taut.lifecycle.features.shape import MESSAGE_MAX, shaped
from taut.ports.blobs import Blobs
from taut.ports.jobs import JobEnd, JobResult, Jobs, Limits, Progress, Task
from taut.project.manifest import FeaturesSpec

JOB: Final = "taut.lifecycle.features.job:compute"
_CELL_BYTES: Final = 4  # of a row and column in memory, at the least where columns are of many types
_REMEDY: Final = {
    JobEnd.TIMED_OUT: "allow more time, or compute less",
    JobEnd.OUT_OF_MEMORY: "allow more memory, or compute lazily",
    JobEnd.OUTPUT_TOO_LARGE: "allow more output, or return fewer rows",
}


def compute_in_job(
    jobs: Jobs,
    blobs: Blobs,
    spec: FeaturesSpec,
    frames: Mapping[str, pl.LazyFrame],
    *,
    bundle: str,
    seed: int,
    limits: Limits,
    progress: Progress | None,
    scratch: Path | None = None,
) -> pl.DataFrame:
    """Return the shaped result of a feature set's function on its sources, run in a job.

    scratch: where the rows handed to the job lie meanwhile; None for the system's folder.
    Raises InvalidInput when the function raises or its result is no feature set, Exhausted when the job passed its
    limits, Unavailable when it was killed.
    """
    with (
        room_for(f"the files of feature set {spec.name!r}"),
        tempfile.TemporaryDirectory(prefix="taut-features-", dir=scratch) as folder,
        blobs.local(bundle) as code,
    ):
        inputs = {"bundle": str(code)}
        for index, name in enumerate(spec.sources):
            path = Path(folder) / f"source-{index}.parquet"
            _hand_over(name, frames[name], path)
            inputs[path.stem] = str(path)
        output = Path(folder) / "output"
        output.mkdir()
        task = Task(
            function=JOB,
            arguments={"spec": msgspec.to_builtins(spec)},
            inputs=inputs,
            limits=limits,
            seed=seed,
        )
        result = jobs.run(task, output=output, progress=progress)
        if result.end is not JobEnd.DONE:
            raise _failure(spec, result)
        # the job ran a builder's code: what it left is checked again here
        return shaped(_read(output / job.OUTPUT, spec, limits), spec)


def _hand_over(name: str, frame: pl.LazyFrame, path: Path) -> None:
    """Write a source's rows to a file that the job may read."""
    try:
        frame.sink_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise Unavailable(
            f"dataset {name!r} cannot be handed to the job ({str(error)[:MESSAGE_MAX]}): check the disk and try again"
        ) from error


def _failure(spec: FeaturesSpec, result: JobResult) -> TautError:
    what = f"feature set {spec.name!r}"
    if result.end is JobEnd.RAISED:
        return InvalidInput(result.error or f"{what}: the job raised without a word; see its log")
    remedy = _REMEDY.get(result.end)
    if remedy is not None:
        return Exhausted(f"{what}: the job ended as {result.end} ({result.error}): {remedy}")
    return Unavailable(f"{what}: the job was killed ({result.error}): run it again")


def _read(path: Path, spec: FeaturesSpec, limits: Limits) -> pl.DataFrame:
    """Read what the job left, unless it would unpack to more than the job itself could hold."""
    try:
        lazy = pl.scan_parquet(path)
        columns = len(lazy.collect_schema())
        rows = int(lazy.select(pl.len()).collect().item())
        if rows * columns * _CELL_BYTES > limits.memory_bytes:
            raise InvalidInput(
                f"feature set {spec.name!r}: the job left {rows:,} rows of {columns} columns, more than its memory holds"
            )
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InvalidInput(f"feature set {spec.name!r}: the job left no readable result: {error}") from error
