"""Bring a run's model before the model gate: everything is measured again through the runtime that will answer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import VersionRef
from taut.core.room import room_for
from taut.core.schema import ModelSignature
from taut.lifecycle.registry import MODEL_FILE, Candidate, File, GateInputs, Score, VersionInfo
from taut.lifecycle.training import Run, limits_of
from taut.ports.jobs import JobEnd, Task
from taut.project.manifest import ModelSpec
from taut.serving.runtime import load, score_rows
from taut.workflows.rooms import Rooms

_TRIAL_S: Final = 120.0


def judge_candidate(rooms: Rooms, spec: ModelSpec, run_id: str, *, actor: str) -> dict[str, Any]:
    """Register the model of a run, judge it, and return `{"version", "verdict", "reasons"}`.

    The same run again gives the version that it became.
    """
    run = rooms.training.get(run_id)
    return judge_registered(rooms, rooms.registry.register(candidate_of(run, spec)), run, actor=actor)


def judge_registered(
    rooms: Rooms, info: VersionInfo, run: Run, *, actor: str, parity: str | None = None
) -> dict[str, Any]:
    """Judge a version that a run, or a variant of its model, was registered as; one with a verdict keeps it.

    parity: the digest of what a variant itself says about the rows of the run's parity sample.
    """
    if info.verdict is None:  # else it was judged before a crash
        holdout, sample = rooms.training.holdout(run.id), rooms.training.parity_sample(run.id, said=parity)
        fault = try_apart(rooms, run, holdout, sample, model=info.candidate.files[MODEL_FILE].digest)
        inputs = GateInputs(
            score=_refusing(fault) if fault else score,
            holdout=holdout,
            parity=sample,
            live=live_version(rooms, info.candidate.model),
        )
        info = rooms.registry.judge(info.ref, inputs, actor=actor)
    verdict = info.verdict
    return {
        "version": str(info.ref),
        "verdict": "reject" if verdict is None else str(verdict.decision),
        "reasons": ["the gate gave no verdict"] if verdict is None else list(verdict.reasons),
    }


def try_apart(rooms: Rooms, run: Run, *frames: pl.DataFrame, model: str | None = None) -> str:
    """Run a model that nobody ran yet in a job, on the rows that the gate will use; return what went wrong, or "".

    model: its digest; None for what the run left.
    A model of standard operators may still loop for ever or ask for any memory: control must not be who finds out.
    """
    report, artifact = run.report, run.artifact("model.onnx")
    if report is None or artifact is None:
        raise NotFound(f"run {run.id} left no model: its state is {run.state}")
    names = wanted(report.signature)
    limits = limits_of(run.spec.resources)
    limits = msgspec.structs.replace(limits, timeout_s=min(limits.timeout_s, _TRIAL_S), output_bytes=2**20)
    with (
        room_for(f"trying the model of {run.id}"),
        tempfile.TemporaryDirectory(prefix="taut-trial-", dir=rooms.scratch) as folder,
        rooms.blobs.local(model or artifact.digest) as local,
    ):
        inputs = {"model": str(local)}
        for at, frame in enumerate(frames):
            inputs[f"rows-{at}"] = str(Path(folder, f"rows-{at}.parquet"))
            frame.select([name for name in names if name in frame.columns]).write_parquet(
                inputs[f"rows-{at}"]
            )
        task = Task(
            function="taut.serving.runtime.job:trial",
            arguments={"signature": msgspec.to_builtins(report.signature)},
            inputs=inputs,
            limits=limits,
        )
        result = rooms.jobs.run(task, output=Path(folder, "output"))
    return (
        "" if result.end is JobEnd.DONE else f"tried apart, the model ended as {result.end}: {result.error}"
    )


def _refusing(fault: str) -> Score:
    def refuse(_model: bytes, _signature: ModelSignature, _rows: pl.DataFrame) -> Any:
        raise InvalidInput(fault)

    return refuse


def candidate_of(run: Run, spec: ModelSpec) -> Candidate:
    """Describe what a run made, for the registry. Raises NotFound when it made no model."""
    report, artifact = run.report, run.artifact("model.onnx")
    if report is None or artifact is None:
        raise NotFound(f"run {run.id} left no model: its state is {run.state}")
    return Candidate(
        model=spec.name, run=run.id, author=run.actor,
        files={artifact.name: File(digest=artifact.digest, size_bytes=artifact.size_bytes)},
        signature=report.signature, label=spec.label, metrics=report.metrics, baselines=report.baselines,
        snapshots=run.data.snapshots,
        features={item.name: item.materialisation for item in run.data.features},
        bundle=run.code.bundle, lock=run.code.lock, data=run.data.digest, seed=run.seed, params=run.params,
        rules=spec.gates, approvals=spec.approvals, checks=report.checks, risk=spec.risk,
        description=spec.description, model_kind=report.model_kind, split=msgspec.to_builtins(report.split),
        environment={**msgspec.to_builtins(report.environment), "isolation": list(run.isolation)},
    )  # fmt: skip


def live_version(rooms: Rooms, model: str) -> VersionRef | None:
    """Return the version of a model that answers now, the newest where several endpoints serve it."""
    with rooms.records.read() as tx:
        live = [route.version for route in rooms.releases.routes(tx) if route.version.name == model]
    return max(live, key=lambda ref: ref.number, default=None)


def score(model: bytes, signature: ModelSignature, rows: pl.DataFrame) -> np.ndarray[Any, np.dtype[Any]]:
    """Score rows from their raw request columns and looked-up features, through the path of a request.

    Returns probabilities `[n, classes]` of a classifier, values `[n]` of a regressor.
    """
    loaded = load(model, signature)
    outputs = score_rows(
        loaded, rows.select([name for name in wanted(signature) if name in rows.columns]).to_dicts()
    )
    return np.asarray(outputs.probabilities if signature.output == "probability" else outputs.values)


def wanted(signature: ModelSignature) -> list[str]:
    """Return the columns that a request for the model brings or looks up, each once."""
    names = [column.name for column in signature.request]
    names += [item.column.name for item in signature.inputs if item.feature_set is not None]
    return [*dict.fromkeys(names)]
