"""Operations that are stories or change what is served: train, release, roll back, approve."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import Denied, InvalidInput
from taut.core.evidence import Scalar
from taut.core.refs import VersionRef
from taut.entrypoints.operations.features import summary
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    is_single_user,
    to_json,
)
from taut.entrypoints.operations.releases import endpoint_of_word, foreseen_at, word_resource
from taut.project.declared import endpoint_of, features_of, graph_of, model_of
from taut.project.manifest import EndpointSpec


class RunStart(Request, frozen=True):
    """params: over the declared ones. key: asked again with it, the same run is returned."""

    model: str
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    seed: int | None = None
    key: str = ""


class RunReproduce(Request, frozen=True):
    run: str


class FeaturesBuild(Request, frozen=True):
    features: str


class FeaturesMaterialize(Request, frozen=True):
    """until: only what was known at that time, for a replay; null for now."""

    features: str
    version: str | None = None
    until: str | None = None


class ReleaseStart(Request, frozen=True):
    """strategy: null for the declared one. others: further versions, of an experiment. despite: why it is to start although releases are frozen."""

    endpoint: str
    version: str
    others: tuple[str, ...] = ()
    strategy: str | None = None
    reason: str = ""
    despite: str = ""
    key: str = ""


class ReleaseRollback(Request, frozen=True):
    endpoint: str
    to: str | None = None
    reason: str = ""


class ReleaseAbort(Request, frozen=True):
    release: str
    reason: str = ""


class ModelDecision(Request, frozen=True):
    version: str
    reason: str = ""


class ModelOptimise(Request, frozen=True):
    """version: `model@number` or `model@alias`. key: asked again with it, the same result is returned."""

    version: str
    key: str = ""


class ModelCompose(Request, frozen=True):
    """versions: node -> `model@number`, instead of the live or newest approved ones. key: as of `run.start`."""

    graph: str
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    key: str = ""


class PipelineStart(Request, frozen=True):
    """The whole story: ingest, train, wait for a decision, release. wait: until it ends or asks for a decision."""

    endpoint: str
    ingest: tuple[str, ...] = ()
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    key: str = ""


def _story(platform: Platform, name: str, arguments: Json, key: str, progress: Progress) -> Json:
    story = platform.stories.start(name, arguments, key=f"{name}/{key or platform.ids.new('key')}")
    platform.stories.watch(story, progress)
    result: Json = platform.stories.result(story)
    return {**result, "story": story}


def _train(platform: Platform, caller: Caller, request: RunStart, progress: Progress) -> Json:
    manifest = platform.plans.require()
    if any(spec.name == request.model for spec in manifest.graphs):
        if request.params or request.seed is not None:
            raise InvalidInput(
                f"{request.model} is a graph: parameters and seeds belong to the models that are its nodes"
            )
        told = ModelCompose(graph=request.model, key=request.key)
        return _compose(platform, caller, told, progress)
    model_of(manifest, request.model)
    arguments: Json = {"model": request.model, "actor": caller.principal.id, "params": request.params}
    if request.seed is not None:
        arguments["seed"] = request.seed
    return _story(platform, "train", arguments, request.key, progress)


def _compose(platform: Platform, caller: Caller, request: ModelCompose, progress: Progress) -> Json:
    graph_of(platform.plans.require(), request.graph)
    arguments: Json = {"graph": request.graph, "actor": caller.principal.id, "versions": request.versions}
    return _story(platform, "compose", arguments, request.key, progress)


def _optimise(platform: Platform, caller: Caller, request: ModelOptimise, progress: Progress) -> Json:
    from taut.workflows.optimise import original_of

    ref = platform.registry.resolve(request.version)
    original_of(platform, ref)  # refused at once, without a story
    arguments: Json = {"version": str(ref), "actor": caller.principal.id}
    return _story(platform, "optimise", arguments, request.key, progress)


def _reproduce(platform: Platform, caller: Caller, request: RunReproduce, progress: Progress) -> Json:
    from taut.lifecycle.training import sign_code

    progress(f"training {request.run} again", None)
    run = platform.training.get(request.run)
    platform.plans.verify_bundle(run.code.bundle)
    code = sign_code(
        platform.keys, bundle=run.code.bundle, lock=platform.environment_lock, actor=caller.principal.id
    )
    again = platform.training.reproduce(request.run, actor=caller.principal.id, code=code, progress=progress)
    return {
        "original": again.original, "run": again.run.id, "same": again.same, "digest": again.run.model_digest,
        "differences": to_json(again.differences),
    }  # fmt: skip


def _build(platform: Platform, caller: Caller, request: FeaturesBuild, progress: Progress) -> Json:
    from taut.workflows.train import build_features, current_snapshots

    manifest = platform.plans.require()
    spec = features_of(manifest, request.features)
    progress(f"computing {spec.name}", None)
    snapshots = current_snapshots(platform, spec.sources)
    made = build_features(platform, spec, manifest, snapshots, actor=caller.principal.id)
    return summary(platform.features.materialisation(spec.name, made))


def _materialize(
    platform: Platform, caller: Caller, request: FeaturesMaterialize, progress: Progress
) -> Json:
    from datetime import datetime

    from taut.workflows.release import materialize

    until = None
    if request.until is not None:
        try:
            until = datetime.fromisoformat(request.until)
        except ValueError as error:
            raise InvalidInput(f"until {request.until!r} is no time: write 2013-11-01T12:00:00Z") from error
        if until.tzinfo is None:
            raise InvalidInput(f"until {request.until!r} has no time zone: add one, for example Z for UTC")
    progress(f"writing {request.features} online", None)
    state = materialize(
        platform, request.features, actor=caller.principal.id, version=request.version, until=until
    )
    return {"features": request.features, **to_json(state)}


def _release(platform: Platform, caller: Caller, request: ReleaseStart, progress: Progress) -> Json:
    endpoint = endpoint_of(platform.plans.require(), request.endpoint)
    arguments: Json = {
        "endpoint": endpoint.name,
        "version": str(VersionRef.parse(request.version, name=endpoint.model)),
        "strategy": request.strategy or _declared(endpoint, request),
        "actor": caller.principal.id,
        "reason": request.reason,
        "others": [str(VersionRef.parse(one, name=endpoint.model)) for one in request.others],
        "despite": request.despite,
    }
    if request.despite:
        require_person(platform, caller, endpoint.name)
    ahead = foreseen_at(platform, endpoint) if arguments["strategy"] == "canary" else []
    for line in ahead:
        progress(line, None)
    return {**_story(platform, "release", arguments, request.key, progress), "foreseen": ahead}


def _declared(endpoint: EndpointSpec, request: ReleaseStart) -> str:
    """Return the strategy that the project declares: of several versions its experiment's."""
    if request.others and endpoint.experiment is not None:
        return endpoint.experiment.kind
    return endpoint.release.kind


def require_person(platform: Platform, caller: Caller, endpoint: str) -> None:
    """A freeze gives way to a person with the right to say so, never to a program."""
    if caller.principal.kind not in ("human", "owner"):
        raise Denied(
            f"{caller.principal.id} is a {caller.principal.kind}: despite a freeze, people start releases"
        )
    platform.policy.require(
        caller.principal, "release.unfreeze", f"endpoint:{endpoint}", _context(platform, caller)
    )


def _rollback(platform: Platform, caller: Caller, request: ReleaseRollback, progress: Progress) -> Json:
    from taut.workflows.release import roll_back

    progress(f"rolling {request.endpoint} back", None)
    info, pushed = roll_back(
        platform, endpoint=request.endpoint, to=request.to, actor=caller.principal.id, reason=request.reason
    )
    return {
        **to_json(info),
        "epoch": pushed.epoch,
        "gateways": len(pushed.applied),
        "silent": list(pushed.silent),
    }


def _abort(platform: Platform, caller: Caller, request: ReleaseAbort, _progress: Progress) -> Json:
    from taut.ports.records import transact

    actor, reason = caller.principal.id, request.reason
    release = request.release
    if not release.startswith("rel_"):
        release = platform.releases.status(release).release
    transact(platform.records, lambda tx: platform.releases.abort(tx, release, actor=actor, reason=reason))
    info = platform.releases.show(release)
    if info.strategy != "direct":
        platform.publish()
    return dict(to_json(info))


def _approve(platform: Platform, caller: Caller, request: ModelDecision, _progress: Progress) -> Json:
    single = is_single_user(platform) and platform.plans.environment() != "production"
    info = platform.registry.approve(
        _version(request.version), caller.principal, reason=request.reason, single_user=single
    )
    _tell(platform)
    return _decided(info)


def _reject(platform: Platform, caller: Caller, request: ModelDecision, _progress: Progress) -> Json:
    info = platform.registry.reject(_version(request.version), caller.principal, reason=request.reason)
    _tell(platform)
    return _decided(info)


def _decided(info: Any) -> Json:
    return {
        "version": str(info.ref), "state": str(info.state), "approvals": to_json(info.approvals),
        "needed": info.approvals_needed,
    }  # fmt: skip


def _tell(platform: Platform) -> None:
    from taut.workflows.decisions import tell_decisions

    tell_decisions(platform, platform.stories)


def _pipeline(platform: Platform, caller: Caller, request: PipelineStart, _progress: Progress) -> Json:
    manifest = platform.plans.require()
    endpoint = endpoint_of(manifest, request.endpoint)
    _require_all(platform, caller, request)
    arguments: Json = {
        "model": endpoint.model, "endpoint": endpoint.name, "actor": caller.principal.id,
        "ingest": list(request.ingest), "params": request.params, "strategy": endpoint.release.kind,
    }  # fmt: skip
    key = request.key or platform.ids.new("key")
    story = platform.stories.start("train_and_release", arguments, key=f"train_and_release/{key}")
    return _status(platform, story)


def _require_all(platform: Platform, caller: Caller, request: PipelineStart) -> None:
    """The story ingests and releases too: it needs the right to each, not only to train."""
    context = _context(platform, caller)
    for name in request.ingest:
        platform.policy.require(caller.principal, "data.ingest", f"dataset:{name}", context)
    platform.policy.require(caller.principal, "release.start", f"endpoint:{request.endpoint}", context)


def _context(platform: Platform, caller: Caller) -> Json:
    return {
        "single_user": is_single_user(platform), "environment": platform.plans.environment(),
        "plane": "control", "local": caller.local, "now": platform.clock.now(),
    }  # fmt: skip


def _status(platform: Platform, story: str) -> Json:
    return dict(msgspec.to_builtins(platform.stories.status(story)))


class StoryShow(Request, frozen=True):
    story: str


def _story_show(platform: Platform, _caller: Caller, request: StoryShow, _progress: Progress) -> Json:
    return _status(platform, request.story)


def _version(text: str) -> VersionRef:
    return VersionRef.parse(text)


def _author_facts(platform: Platform, request: ModelDecision) -> Json:
    return {"author": platform.registry.show(_version(request.version)).candidate.author}


OPERATIONS: Final = (
    Operation(name="run.start", action="train", request=RunStart, handle=_train, resource=lambda request: f"model:{request.model}", story=True, summary="Train a model and judge it by the model gate"),
    Operation(name="model.optimise", action="model.optimise", request=ModelOptimise, handle=_optimise, resource=lambda request: f"model:{request.version}", story=True, summary="Try smaller and faster forms of a version, and bring what gains before the gate"),
    Operation(name="model.compose", action="train", request=ModelCompose, handle=_compose, resource=lambda request: f"model:{request.graph}", story=True, summary="Compose a graph of approved versions and judge it by the model gate"),
    Operation(name="run.reproduce", action="run.reproduce", request=RunReproduce, handle=_reproduce, resource=lambda request: f"run:{request.run}", summary="Train a run again and say whether the same model comes out"),
    Operation(name="features.build", action="features.build", request=FeaturesBuild, handle=_build, resource=lambda request: f"features:{request.features}", summary="Compute a feature set from the current snapshots"),
    Operation(name="features.materialize", action="features.materialize", request=FeaturesMaterialize, handle=_materialize, resource=lambda request: f"features:{request.features}", summary="Write a feature set online"),
    Operation(name="release.start", action="release.start", request=ReleaseStart, handle=_release, resource=lambda request: f"endpoint:{request.endpoint}", story=True, fresh=True, summary="Release a version to an endpoint"),
    Operation(name="release.rollback", action="release.rollback", request=ReleaseRollback, handle=_rollback, resource=lambda request: f"endpoint:{request.endpoint}", summary="Return an endpoint to an earlier release"),
    Operation(name="release.abort", action="release.abort", request=ReleaseAbort, handle=_abort, resource=word_resource, of=endpoint_of_word, summary="End a release that is under way"),
    Operation(name="model.approve", action="model.approve", request=ModelDecision, handle=_approve, resource=lambda request: f"model:{request.version}", facts=_author_facts, fresh=True, summary="Approve a model version"),
    Operation(name="model.reject", action="model.reject", request=ModelDecision, handle=_reject, resource=lambda request: f"model:{request.version}", facts=_author_facts, fresh=True, summary="Reject a model version, for ever"),
    Operation(name="pipeline.start", action="train", request=PipelineStart, handle=_pipeline, resource=lambda request: f"endpoint:{request.endpoint}", fresh=True, summary="Ingest, train, wait for a decision and release, as one durable story"),
    Operation(name="story.show", action="status.read", request=StoryShow, handle=_story_show, resource=lambda request: f"story:{request.story}", reads=True, summary="Show where a story stands"),
)  # fmt: skip
