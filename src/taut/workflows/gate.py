"""Bring a run's model before the model gate: everything is measured again through the runtime that will answer.

Nobody's model runs in control: it is tried in a job, and what the gate measures are the answers that the job left.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.answers import read_answer, write_answer
from taut.core.canonical import digest_bytes, digest_json
from taut.core.errors import InvalidInput, NotFound
from taut.core.evidence import Check, Outcome
from taut.core.probes import Probe
from taut.core.refs import VersionRef
from taut.core.room import room_for
from taut.core.schema import ModelSignature
from taut.lifecycle.registry import Candidate, File, GateInputs, VersionInfo
from taut.lifecycle.registry.examination import EXAMINED, probes_for, shuffles
from taut.lifecycle.training import Run, limits_of
from taut.ports.jobs import JobEnd, Limits, Task
from taut.project.manifest import GateSpec, ModelSpec
from taut.workflows.rooms import Rooms
from taut.workflows.supply import audit_of

Array = npt.NDArray[Any]
_TRIAL_S: Final = 120.0
_OUTPUT_BYTES: Final = 2**30
_LATENCY_MS_MAX: Final = 1e9
_EXAMINED_S: Final = 600.0
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
        examined=examined_apart(rooms, candidate, holdout, tried),
        shuffled={probe.column: tried.probes[probe.name] for probe in probes if probe.kind == "shuffle" and not tried.fault},
    )  # fmt: skip


def _shuffled(candidate: Candidate) -> list[str]:
    """Return the inputs whose importance is measured: all, of very many the first."""
    return [item.column.name for item in candidate.signature.inputs][:_SHUFFLED]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered in its job, a tensor for each frame: probabilities `[n, classes]`, or values `[n]`.

    fault: what went wrong instead, or "". probes: by name, what it answered to changed rows of the first frame. latency_ms: of
    one row.
    """

    fault: str
    answers: tuple[Array, ...] = ()
    probes: dict[str, Array] = {}
    latency_ms: float = 0.0

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
    return Tried(fault="", answers=answers, probes=probed, latency_ms=latency_ms)


def examined_apart(
    rooms: Rooms, candidate: Candidate, holdout: pl.DataFrame, tried: Tried
) -> tuple[Check, ...]:
    """Examine a candidate by its declared rules in a job, and return a check for each; where there is none, no job runs.

    What the model answered is given to that job, the model is not: no code of a builder runs in it.
    """
    rules = [rule for rule in candidate.rules if rule.kind in EXAMINED]
    if not rules:
        return ()
    if tried.fault:
        return _errored(rules, tried.fault)
    asked = [probe for rule in rules for probe in probes_for(rule)]
    names = dict.fromkeys([candidate.label, *(column for rule in rules for column in rule.columns)])
    with (
        room_for("examining a model"),
        tempfile.TemporaryDirectory(prefix="taut-trial-", dir=rooms.scratch) as folder,
    ):
        inputs = {"rows": str(Path(folder, "rows.parquet")), "answers": str(Path(folder, "answers.npy"))}
        holdout.select(name for name in names if name in holdout.columns).write_parquet(inputs["rows"])
        write_answer(Path(inputs["answers"]), tried.answers[0])
        for at, probe in enumerate(asked):
            inputs[f"probe-{at}"] = str(Path(folder, f"probe-{at}.npy"))
            write_answer(Path(inputs[f"probe-{at}"]), tried.probes[probe.name])
        task = Task(
            function="taut.lifecycle.registry.examination.job:examine",
            arguments={
                "rules": msgspec.to_builtins(rules), "signature": msgspec.to_builtins(candidate.signature),
                "label": candidate.label, "probes": msgspec.to_builtins(asked),
            },
            inputs=inputs,
            limits=Limits(timeout_s=_EXAMINED_S),
        )  # fmt: skip
        result = rooms.jobs.run(task, output=Path(folder, "output"))
    if result.end is not JobEnd.DONE:
        return _errored(rules, f"the examination ended as {result.end}: {result.error}")
    return msgspec.convert(result.value["checks"], tuple[Check, ...])


def _errored(rules: Sequence[GateSpec], why: str) -> tuple[Check, ...]:
    return tuple(Check(name=rule.name, outcome=Outcome.ERRORED, message=why) for rule in rules)


def _answer(path: Path, rows: int, signature: ModelSignature) -> Array:
    found = read_answer(path, rows)
    shape = (rows, len(signature.classes)) if signature.output == "probability" else (rows,)
    if rows and (found.shape != shape or not np.isfinite(found).all()):
        raise InvalidInput(f"answers of shape {found.shape} to {rows:,} rows, wanted {shape} and finite")
    return found.reshape(shape)


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


def live_version(rooms: Rooms, model: str) -> VersionRef | None:
    """Return the version of a model that answers now, the newest where several endpoints serve it."""
    with rooms.records.read() as tx:
        live = [route.version for route in rooms.releases.routes(tx) if route.version.name == model]
    return max(live, key=lambda ref: ref.number, default=None)


def wanted(signature: ModelSignature) -> list[str]:
    """Return the columns that a request for the model brings or looks up, each once."""
    names = [column.name for column in signature.request]
    names += [item.column.name for item in signature.inputs if item.feature_set is not None]
    return [*dict.fromkeys(names)]
