"""Trying a model in a job: it may loop, take any memory or be hostile, and control must not be who finds out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.answers import read_answer
from taut.core.errors import InvalidInput
from taut.core.probes import Probe
from taut.core.room import room_for
from taut.core.schema import ModelSignature
from taut.ports.jobs import JobEnd, Limits, Task
from taut.workflows.rooms import Rooms

Array = npt.NDArray[Any]
_TRIAL_S: Final = 120.0
_OUTPUT_BYTES: Final = 2**30
_LATENCY_MS_MAX: Final = 1e9


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered in its job, a tensor for each frame: probabilities `[n, classes]`, or values `[n]`.

    fault: what went wrong instead, or "". probes: by name, what it answered to changed rows of the first frame. latency_ms: of
    one row. memory_bytes: the most that the job took, taut's own code included.
    """

    fault: str
    answers: tuple[Array, ...] = ()
    probes: dict[str, Array] = {}
    latency_ms: float = 0.0
    memory_bytes: int = 0

    def of(self, frame: int) -> Array:
        """Return the answers to a frame. Raises InvalidInput where there are none."""
        if self.fault:
            raise InvalidInput(self.fault)
        return self.answers[frame]


def try_apart(
    rooms: Rooms,
    model: str,
    signature: ModelSignature,
    frames: Sequence[pl.DataFrame],
    *,
    limits: Limits,
    probes: Sequence[Probe] = (),
) -> Tried:
    """Run a model in a job on frames of rows that the gate will use, and return what it answered.

    model: the digest of its file. probes: by which rows of the first frame are changed and asked about too.
    A model of standard operators may still loop for ever or ask for any memory, and code may do anything: control must not
    be who finds out. What the job leaves is checked for shape and finiteness, and believed no further.
    """
    names = wanted(signature)
    limits = msgspec.structs.replace(
        limits, timeout_s=min(limits.timeout_s, _TRIAL_S), output_bytes=_OUTPUT_BYTES
    )
    with (
        room_for("trying a model"),
        tempfile.TemporaryDirectory(prefix="taut-trial-", dir=rooms.scratch) as folder,
        rooms.blobs.local(model) as local,
    ):
        inputs = {"model": str(local)}
        for at, frame in enumerate(frames):
            inputs[f"rows-{at}"] = str(Path(folder, f"rows-{at}.parquet"))
            frame.select([name for name in names if name in frame.columns]).write_parquet(
                inputs[f"rows-{at}"]
            )
        task = Task(
            function="taut.serving.runtime.job:trial",
            arguments={"signature": msgspec.to_builtins(signature), "probes": msgspec.to_builtins(probes)},
            inputs=inputs,
            limits=limits,
        )
        output = Path(folder, "output")
        result = rooms.jobs.run(task, output=output)
        if result.end is not JobEnd.DONE:
            return Tried(fault=f"tried apart, the model ended as {result.end}: {result.error}")
        try:
            answers = tuple(
                _answer(output / f"rows-{at}.npy", frame.height, signature) for at, frame in enumerate(frames)
            )
            probed = {
                probe.name: _answer(
                    output / f"probe-{at}.npy", len(probe.places(frames[0].height)), signature
                )
                for at, probe in enumerate(probes)
            }
            latency_ms = msgspec.convert(result.value.get("latency_ms"), float)
        except (InvalidInput, msgspec.ValidationError) as error:
            return Tried(fault=f"tried apart, the model left what is no answer: {error}")
    latency_ms = min(_LATENCY_MS_MAX, max(0.0, latency_ms))
    return Tried(
        fault="", answers=answers, probes=probed, latency_ms=latency_ms, memory_bytes=result.peak_memory_bytes
    )


def _answer(path: Path, rows: int, signature: ModelSignature) -> Array:
    found = read_answer(path, rows)
    shape = (rows, len(signature.classes)) if signature.output == "probability" else (rows,)
    if rows and (found.shape != shape or not np.isfinite(found).all()):
        raise InvalidInput(f"answers of shape {found.shape} to {rows:,} rows, wanted {shape} and finite")
    return found.reshape(shape)


def wanted(signature: ModelSignature) -> list[str]:
    """Return the columns that a request for the model brings or looks up, each once."""
    names = [column.name for column in signature.request]
    names += [item.column.name for item in signature.inputs if item.feature_set is not None]
    return [*dict.fromkeys(names)]
