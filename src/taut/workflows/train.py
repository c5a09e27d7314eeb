"""Train a model: pin the data, compute features, join them point-in-time, run, gate, register."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
import polars as pl

from taut.core.errors import Conflict, InvalidInput, NotFound, TautError
from taut.core.evidence import Scalar
from taut.core.frames import schema_of
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.schema import Column, Schema
from taut.lifecycle.features import JoinedFeatures as Joined
from taut.lifecycle.training import JoinedFeatures, RunState, TrainingData, sign_code
from taut.ports.stories import Story
from taut.ports.tables import ROW_ID, TableManifest
from taut.project.declared import dataset_of, features_of, model_of
from taut.project.manifest import FeaturesSpec, Manifest, ModelSpec
from taut.workflows.gate import judge_candidate
from taut.workflows.rooms import Rooms


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, by whom, and what differs from its declaration this once. plan, snapshots: as of `pin`."""

    model: str
    actor: str
    plan: str = ""
    snapshots: dict[str, str] = {}
    params: dict[str, Scalar] = {}
    seed: int | None = None


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about, fixed at its start: the plan that holds and the snapshots that are current."""

    manifest: Manifest
    snapshots: dict[str, str]

    @property
    def digest(self) -> str:
        return self.manifest.digest


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """JSON shape of INTERFACE: run, version, metrics, verdict; `version` is empty when the run left no model."""

    run: str
    version: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float | str]]
    verdict: str
    reasons: tuple[str, ...] = ()
    state: str = "done"
    error: str = ""


def train(rooms: Rooms, story: Story, request: TrainRequest) -> TrainResult:
    """Tell the story. Each step may run twice and changes nothing the second time."""
    story.progress("pinning code and data", 0.0)
    pinned = msgspec.convert(story.step("pin", lambda: _json(_pin(rooms, request))), Pinned)
    spec = model_of(pinned.manifest, request.model)
    made = {}
    for number, name in enumerate(spec.features):
        story.progress(f"computing feature set {name}", 0.1 + 0.2 * number / len(spec.features))
        made[name] = story.step(f"features {name}", partial(_build, rooms, pinned, name, request.actor))
    story.progress("joining features point-in-time", 0.3)
    data = msgspec.convert(
        story.step("join", lambda: _json(training_data(rooms, pinned, spec, made))), TrainingData
    )
    run_id = story.step("name the run", lambda: rooms.ids.new("run"))
    story.progress(f"training {spec.name} on {data.table.rows:,} rows", 0.4)
    try:
        outcome = story.step("train", lambda: _run(rooms, story, pinned, spec, data, run_id, request))
    except TautError as error:
        why = error  # `error` itself is gone when the commit below is made again
        story.commit("give up", lambda tx: rooms.training.give_up(tx, run_id, why))
        raise
    if outcome["state"] != RunState.DONE:
        return TrainResult(
            run=run_id, version="", metrics={}, baselines={}, verdict="reject", state=outcome["state"],
            reasons=(outcome["error"],), error=outcome["error"],
        )  # fmt: skip
    story.progress("judging the candidate", 0.9)
    judged = story.step("judge", lambda: judge_candidate(rooms, spec, run_id, actor=request.actor))
    return TrainResult(
        run=run_id, version=judged["version"], metrics=outcome["metrics"], baselines=outcome["baselines"],
        verdict=judged["verdict"], reasons=tuple(judged["reasons"]),
    )  # fmt: skip


def _pin(rooms: Rooms, request: TrainRequest) -> Pinned:
    pinned = pin(rooms, request.model, plan=request.plan)
    return msgspec.structs.replace(pinned, snapshots=request.snapshots) if request.snapshots else pinned


def pin(rooms: Rooms, model: str, *, plan: str = "") -> Pinned:
    """Fix what a run is about. plan: digest of the only manifest that will do; whichever holds without one.

    Raises NotFound for an unknown model, or a dataset without a snapshot; Conflict where another plan holds.
    """
    manifest = rooms.plans.require()
    if plan and manifest.digest != plan:
        raise Conflict(
            f"another plan was applied since the run of {model} was decided: begin it again, `taut trigger fire {model}`"
        )
    spec = model_of(manifest, model)
    names = {spec.dataset}
    for feature_set in spec.features:
        names |= set(features_of(manifest, feature_set).sources)
    return Pinned(manifest=manifest, snapshots=current_snapshots(rooms, names))


def current_snapshots(rooms: Rooms, datasets: Iterable[str]) -> dict[str, str]:
    """Return dataset -> its current snapshot. Raises NotFound for a dataset without one."""
    snapshots = {}
    for name in sorted(datasets):
        info = rooms.data.current(name)
        if info is None:
            raise NotFound(f"dataset {name} has no snapshot yet: run `taut data ingest {name}`")
        snapshots[name] = str(info.ref)
    return snapshots


def training_data(rooms: Rooms, pinned: Pinned, spec: ModelSpec, made: dict[str, str]) -> TrainingData:
    """Join the pinned features to the pinned rows, each at its own time, and keep the table."""
    dataset = dataset_of(pinned.manifest, spec.dataset)
    if dataset.event_time is None:
        raise InvalidInput(f"dataset {dataset.name} has no event_time: models need one to split by time")
    joined = [
        Joined(materialisation=rooms.features.materialisation(name, made[name]), on=spec.on)
        for name in spec.features
    ]
    keys = [key for item in joined for key in rooms.features.lookup(item.materialisation.spec, spec.on).keys]
    snapshot = VersionRef.parse(pinned.snapshots[spec.dataset])
    there = rooms.data.snapshot(snapshot).schema.names
    grouped = [name for rule in spec.gates for name in rule.columns if name in there]
    wanted = dict.fromkeys(
        [
            dataset.event_time,
            *spec.request,
            *keys,
            spec.label,
            *([spec.label_at] if spec.label_at else []),
            *grouped,
        ]
    )
    base = rooms.data.scan(snapshot, row_ids=True).select(ROW_ID, *wanted)
    frame = rooms.features.training_frame(base.collect(), dataset.event_time, joined)
    known = {column.name: column for column in rooms.data.snapshot(snapshot).schema.columns}
    return TrainingData(
        table=_keep(rooms, frame, known),
        event_time=dataset.event_time,
        snapshots=pinned.snapshots,
        features=tuple(_described(rooms, item, spec) for item in joined),
    )


def _described(rooms: Rooms, item: Joined, spec: ModelSpec) -> JoinedFeatures:
    made = item.materialisation
    columns = tuple(made.schema[name] for name in made.features)
    return JoinedFeatures(
        lookup=rooms.features.lookup(made.spec, spec.on),
        columns=tuple(Column(column.name, column.dtype, nullable=True) for column in columns),
        materialisation=made.id,
    )


def _keep(rooms: Rooms, frame: pl.DataFrame, known: Mapping[str, Column]) -> TableManifest:
    """Keep the table; what the contract promises never to be null is not nullable, features always are."""
    found = (known.get(column.name, column) for column in schema_of(frame).columns if column.name != ROW_ID)
    schema = Schema(tuple(found))
    return rooms.tables.write([frame], schema=schema, first_row_id=0)


def _build(rooms: Rooms, pinned: Pinned, name: str, actor: str) -> str:
    spec = features_of(pinned.manifest, name)
    return build_features(rooms, spec, pinned.manifest, pinned.snapshots, actor=actor)


def build_features(
    rooms: Rooms, spec: FeaturesSpec, manifest: Manifest, snapshots: dict[str, str], *, actor: str
) -> str:
    """Compute a feature set from named snapshots and return the materialisation's id."""
    rooms.plans.verify_bundle(manifest.bundle)
    sources = {}
    for name in spec.sources:
        ref = VersionRef.parse(snapshots[name])
        sources[name] = (Ref(Kind.SNAPSHOT, str(ref)), rooms.data.scan(ref))
    return rooms.features.build(spec, sources, bundle=manifest.bundle, actor=actor).id


def _run(
    rooms: Rooms,
    story: Story,
    pinned: Pinned,
    spec: ModelSpec,
    data: TrainingData,
    run_id: str,
    request: TrainRequest,
) -> dict[str, Any]:
    rooms.plans.verify_bundle(pinned.manifest.bundle)
    code = sign_code(
        rooms.keys, bundle=pinned.manifest.bundle, lock=rooms.environment_lock, actor=request.actor
    )
    run = rooms.training.train(
        spec, data, code, actor=request.actor, seed=request.seed, params=request.params, run_id=run_id,
        progress=lambda message, fraction: story.progress(message, 0.4 + 0.5 * fraction),
    )  # fmt: skip
    report = run.report
    return {
        "state": str(run.state),
        "error": run.error,
        "metrics": {} if report is None else report.metrics,
        "baselines": {} if report is None else report.baselines,
    }


def _json(value: object) -> Any:
    return msgspec.to_builtins(value)
