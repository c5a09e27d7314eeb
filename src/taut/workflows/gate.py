"""Bring a run's model before the model gate: everything is measured again through the runtime that will answer."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl

from taut.core.errors import NotFound
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.lifecycle.registry import Candidate, File, GateInputs
from taut.lifecycle.training import Run
from taut.project.manifest import ModelSpec
from taut.serving.runtime import load, score_rows
from taut.workflows.rooms import Rooms


def judge_candidate(rooms: Rooms, spec: ModelSpec, run_id: str, *, actor: str) -> dict[str, Any]:
    """Register the model of a run, judge it, and return `{"version", "verdict", "reasons"}`.

    The same run again gives the version that it became.
    """
    run = rooms.training.get(run_id)
    info = rooms.registry.register(candidate_of(run, spec))
    if info.verdict is None:  # else this very run was judged before a crash
        inputs = GateInputs(
            score=score,
            holdout=rooms.training.holdout(run_id),
            parity=rooms.training.parity_sample(run_id),
            live=live_version(rooms, spec.name),
        )
        info = rooms.registry.judge(info.ref, inputs, actor=actor)
    verdict = info.verdict
    return {
        "version": str(info.ref),
        "verdict": "reject" if verdict is None else str(verdict.decision),
        "reasons": ["the gate gave no verdict"] if verdict is None else list(verdict.reasons),
    }


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
    names = [column.name for column in signature.request]
    names += [item.column.name for item in signature.inputs if item.feature_set is not None]
    loaded = load(model, signature)
    outputs = score_rows(
        loaded, rows.select([name for name in dict.fromkeys(names) if name in rows.columns]).to_dicts()
    )
    return np.asarray(outputs.probabilities if signature.output == "probability" else outputs.values)
