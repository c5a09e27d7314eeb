"""What moved the answer to a request: the model is asked again, in a job, about rows between training's and this one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from taut.core.attribution import ORDERS, Attribution
from taut.core.refs import VersionRef
from taut.core.room import room_for
from taut.core.schema import ModelSignature
from taut.lifecycle.training import limits_of
from taut.ports.jobs import JobEnd, Task
from taut.serving.predictions import PredictionRecord
from taut.workflows.replay import as_asked, rows_of
from taut.workflows.rooms import Rooms

_OK: Final = 200
_BACKGROUND: Final = 200
_METHOD: Final = (
    f"Shapley values over {ORDERS} orders of the inputs, each beginning at a row of training: they add up to the answer exactly, "
    "the ± is what sampling leaves (95%); what the model did with its inputs, not what causes anything."
)


def what_moved(rooms: Rooms, request_id: str) -> dict[str, Any]:
    """Explain the first row of a request.

    Returns `{"why_not", "of", "base", "answer", "apart", "shares", "method"}`: shares as `Attribution` has them, with each
    input's value; apart: how far the answer is from the logged one; why_not: why nothing can be said, or "".
    Raises NotFound for a request that is not in the prediction log.
    """
    record = rooms.predictions.find(request_id)
    if record.status != _OK or not record.version:
        return {"why_not": "no model answered this request"}
    candidate = rooms.registry.show(VersionRef.parse(record.version)).candidate
    signature = rooms.registry.signature(VersionRef.parse(record.version))
    if signature.form == "graph":
        return {
            "why_not": f"{record.version} is a graph: ask about a request to the endpoint of one of its models"
        }
    run = rooms.training.get(candidate.run)
    row = as_asked([next(rows_of(record))], signature)
    inputs = [item.column.name for item in signature.inputs]
    missing = [name for name in inputs if name not in row.columns]
    if missing:
        return {"why_not": f"the log does not have {', '.join(missing)} of this request"}
    background = rooms.training.observed(candidate.run, rows=_BACKGROUND)
    of, logged = _explained(record, signature)
    with (
        room_for("explaining an answer"),
        tempfile.TemporaryDirectory(prefix="taut-trial-", dir=rooms.scratch) as folder,
        rooms.blobs.local(candidate.artifact.digest) as model,
    ):
        files = {name: str(Path(folder, f"{name}.parquet")) for name in ("row", "background")}
        row.write_parquet(files["row"])
        _like(background, row, inputs).write_parquet(files["background"])
        task = Task(
            function="taut.serving.runtime.job:explain",
            arguments={"signature": msgspec.to_builtins(signature), "of": of},
            inputs={"model": str(model), **files},
            limits=limits_of(run.spec.resources),
        )
        result = rooms.jobs.run(task, output=Path(folder, "output"))
    if result.end is not JobEnd.DONE:
        return {"why_not": f"the job that explains ended as {result.end}: {result.error}"}
    found = msgspec.convert(result.value, Attribution)
    name = f"the probability of {signature.classes[of]!r}" if signature.classes else "the value"
    shares = [{**msgspec.to_builtins(share), "value": row[share.name][0]} for share in found.shares]
    return {
        "why_not": "", "of": name, "base": found.base, "answer": found.answer, "apart": abs(found.answer - logged),
        "shares": shares, "method": _METHOD,
    }  # fmt: skip


def _explained(record: PredictionRecord, signature: ModelSignature) -> tuple[int, float]:
    """Return which class is explained, and what was logged of it: the second of two, of more the one that was answered."""
    if not signature.classes:
        return 0, record.answer.values[0]
    said = record.answer.probabilities[0]
    of = 1 if len(said) == 2 else max(range(len(said)), key=lambda at: said[at])
    return of, said[of]


def _like(background: pl.DataFrame, row: pl.DataFrame, inputs: list[str]) -> pl.DataFrame:
    """Return rows of training with the columns and types of a request; what is no input of the model is the request's own."""
    return background.select(
        pl.col(name).cast(row[name].dtype)
        if name in inputs
        else pl.lit(row[name][0], dtype=row[name].dtype).alias(name)
        for name in row.columns
    )
