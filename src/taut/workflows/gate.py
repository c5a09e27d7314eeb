"""Bring a run's model before the model gate: everything is measured again through the runtime that will answer.

Nobody's model runs in control: it is tried in a job, and what the gate measures are the answers that the job left.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy.typing as npt
import polars as pl

from taut.core.canonical import digest_bytes, digest_json
from taut.core.errors import NotFound
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.lifecycle.registry import Candidate, File, GateInputs, VersionInfo
from taut.lifecycle.registry.examination import probes_for, shuffles
from taut.lifecycle.training import Run, limits_of
from taut.project.manifest import ModelSpec
from taut.workflows.examine import examined
from taut.workflows.live import live_version
from taut.workflows.rooms import Rooms
from taut.workflows.supply import audit_of
from taut.workflows.trial import try_apart

Array = npt.NDArray[Any]
_SHUFFLED: Final = 64


def judge_candidate(rooms: Rooms, spec: ModelSpec, run_id: str, *, actor: str) -> dict[str, Any]:
    """Register the model of a run, judge it, and return `{"version", "verdict", "reasons"}`.

    The same run again gives the version that it became.
    """
    run = rooms.training.get(run_id)
    return judge_registered(rooms, rooms.registry.register(candidate_of(rooms, run, spec)), run, actor=actor)


def judge_registered(
    rooms: Rooms, info: VersionInfo, run: Run, *, actor: str, parity: str | None = None
) -> dict[str, Any]:
    """Judge a version that a run, or a variant of its model, was registered as; one with a verdict keeps it.

    parity: the digest of what a variant itself says about the rows of the run's parity sample.
    """
    if info.verdict is None:  # else it was judged before a crash
        info = rooms.registry.judge(info.ref, _inputs(rooms, info, run, parity), actor=actor)
    verdict = info.verdict
    return {
        "version": str(info.ref),
        "verdict": "reject" if verdict is None else str(verdict.decision),
        "reasons": ["the gate gave no verdict"] if verdict is None else list(verdict.reasons),
    }


def _inputs(rooms: Rooms, info: VersionInfo, run: Run, parity: str | None) -> GateInputs:
    holdout, sample = rooms.training.holdout(run.id), rooms.training.parity_sample(run.id, said=parity)
    limits, candidate = limits_of(run.spec.resources), info.candidate
    probes = (
        *shuffles(_shuffled(candidate)),
        *(probe for rule in candidate.rules for probe in probes_for(rule)),
    )
    tried = try_apart(
        rooms, candidate.artifact.digest, candidate.signature, (holdout, sample), limits=limits, probes=probes
    )

    def score(model: bytes, signature: ModelSignature, rows: pl.DataFrame) -> Array:
        digest = digest_bytes(model)
        if digest == candidate.artifact.digest:
            for at, frame in enumerate((holdout, sample)):
                if rows is frame:
                    return tried.of(at)
        return try_apart(rooms, digest, signature, (rows,), limits=limits).of(0)

    return GateInputs(
        score=score, holdout=holdout, parity=sample, live=live_version(rooms, candidate.model),
        latency_ms=tried.latency_ms, audit=audit_of(rooms, candidate.lock),
        examined=examined(rooms, candidate, run, holdout, tried),
        shuffled={probe.column: tried.probes[probe.name] for probe in probes if probe.kind == "shuffle" and not tried.fault},
    )  # fmt: skip


def _shuffled(candidate: Candidate) -> list[str]:
    """Return the inputs whose importance is measured: all, of very many the first."""
    return [item.column.name for item in candidate.signature.inputs][:_SHUFFLED]


def candidate_of(rooms: Rooms, run: Run, spec: ModelSpec) -> Candidate:
    """Describe what a run made, for the registry. Raises NotFound when it made no model."""
    report, artifact = run.report, run.model_file
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
        materials={
            version: digest_json(rooms.data.manifest(VersionRef.parse(version)))
            for version in run.data.snapshots.values()
        },
        times=None if run.ended_at is None else (run.started_at, run.ended_at),
    )  # fmt: skip
