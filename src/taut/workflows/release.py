"""Release a version to an endpoint, roll one back: recorded, judged, promoted, pushed, verified."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from taut.core.errors import Conflict, InvalidInput, TautError
from taut.core.evidence import Evidence
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.lifecycle.release import ReleaseInfo
from taut.lifecycle.release.canary import CanaryPlan, declared_plan
from taut.lifecycle.release.experiment import ExperimentPlan
from taut.lifecycle.release.shadow import ShadowPlan, declared_shadow
from taut.ports.records import Tx, transact
from taut.ports.stories import Story
from taut.project.declared import endpoint_of, features_of
from taut.project.manifest import EndpointSpec
from taut.trust.ledger import Entry
from taut.workflows.arms import EXPERIMENTS, plan_of, prospects
from taut.workflows.dependents import out_of_step, refuse_torn, tried_beside
from taut.workflows.releasable import release_evidence
from taut.workflows.rooms import Published, Rooms

if TYPE_CHECKING:
    from taut.lifecycle.features import Materialisation, OnlineState

STRATEGIES = ("direct", "canary", "blue-green", "shadow", *EXPERIMENTS)


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    version: str
    strategy: str
    actor: str
    reason: str = ""
    despite: str = ""  # why it is to start although releases are frozen
    others: tuple[str, ...] = ()  # further versions, of an experiment


class ReleaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """JSON shape of `release status`, with what the gateways said. arms, prospects: of an experiment, its versions, and what it can find."""

    release: str
    endpoint: str
    version: str
    strategy: str
    state: str
    verdict: str
    reasons: tuple[str, ...] = ()
    step: int | None = None
    weight: float = 0.0
    guardrails: tuple[str, ...] = ()
    epoch: int = 0
    gateways: int = 0
    arms: tuple[str, ...] = ()
    prospects: str = ""


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is about, fixed at its start: a plan that is applied meanwhile does not change it."""

    endpoint: EndpointSpec
    version: str
    approvals: list[str]
    canary: CanaryPlan | None = None
    shadow: ShadowPlan | None = None  # before the canary, or before a switch
    experiment: ExperimentPlan | None = None

    @property
    def versions(self) -> tuple[VersionRef, ...]:
        """Return the versions that are new to the callers."""
        told = (self.version,) if self.experiment is None else self.experiment.arms[1:]
        return tuple(VersionRef.parse(one) for one in told)


def release(rooms: Rooms, story: Story, request: ReleaseRequest) -> ReleaseResult:
    """Tell the story. What was live stays live until the gate admitted the new version."""
    asked = msgspec.convert(story.step("ask", lambda: msgspec.to_builtins(_ask(rooms, request))), _Asked)
    endpoint, version = asked.endpoint, VersionRef.parse(asked.version)
    story.progress(f"releasing {version} to {endpoint.name}", 0.1)
    id_ = story.commit("start", lambda tx: _start(rooms, tx, version, request, asked.approvals))
    try:
        return _carry_out(rooms, story, asked, id_, request)
    except TautError as error:
        why = f"{error.code}: {error}"  # a release that went live before stays live: abort ends only what is under way
        story.commit("give up", lambda tx: rooms.releases.abort(tx, id_, actor=request.actor, reason=why))
        try:
            story.step("features back", lambda: features_back(rooms, endpoint.name, request.actor))
        except TautError as further:
            story.progress(f"features of what answers are not back: {further.message}")
        raise


def _ask(rooms: Rooms, request: ReleaseRequest) -> _Asked:
    endpoint = endpoint_of(rooms.plans.require(), request.endpoint)
    version = VersionRef.parse(request.version, name=endpoint.model)
    if request.strategy not in STRATEGIES:
        raise InvalidInput(f"strategy {request.strategy!r} is not built yet: use {', '.join(STRATEGIES)}")
    others = [VersionRef.parse(one, name=endpoint.model) for one in request.others]
    for one in (version, *others):
        if one.name != endpoint.model:
            raise InvalidInput(f"endpoint {endpoint.name} serves model {endpoint.model}, not {one.name}")
    if request.strategy in EXPERIMENTS:
        for one in (version, *others):
            refuse_torn(rooms, endpoint.name, one, beside=True)
        plan = plan_of(rooms, endpoint, request.strategy, [version, *others])
        words = [word.id for one in plan.arms[1:] for word in _words(rooms, VersionRef.parse(one))]
        return _Asked(endpoint=endpoint, version=plan.arms[1], approvals=words, experiment=plan)
    if others:
        raise InvalidInput(
            f"strategy {request.strategy} releases one version, and {1 + len(others)} are named: several are compared by "
            f"{' or '.join(EXPERIMENTS)}"
        )
    canary, shadow = None, declared_shadow(endpoint, request.strategy)
    with rooms.records.read() as tx:  # where nothing is live, there is nothing to compare with
        beside = any(one.endpoint == endpoint.name for one in rooms.releases.routes(tx))
    if request.strategy == "shadow" and not beside:
        raise Conflict(
            f"nothing answers at {endpoint.name} yet, and a shadow answers nobody: release a first version otherwise"
        )
    if request.strategy == "canary":
        canary = declared_plan(endpoint)
        if "prediction_drift" in canary.guardrails and rooms.registry.signature(version).output == "value":
            raise InvalidInput(
                f"guardrail prediction_drift compares probabilities, and {version} gives values: leave it out of {endpoint.name}"
            )
        canary = canary if beside else None
    refuse_torn(rooms, endpoint.name, version, beside=beside and request.strategy != "direct")
    words = [word.id for word in _words(rooms, version)]
    return _Asked(
        endpoint=endpoint, version=str(version), approvals=words, canary=canary, shadow=shadow if beside else None
    )  # fmt: skip


def _carry_out(rooms: Rooms, story: Story, asked: _Asked, id_: str, request: ReleaseRequest) -> ReleaseResult:
    story.progress("judging the release", 0.2)
    evidence = msgspec.convert(
        story.step("look", lambda: msgspec.to_builtins(_look(rooms, asked, id_, request))),
        Evidence,
    )
    judged = story.commit("judge", lambda tx: _judge(rooms, tx, evidence, request))
    if judged["decision"] != "admit":
        why = "; ".join(judged["reasons"])
        story.commit("abort", lambda tx: rooms.releases.abort(tx, id_, actor=request.actor, reason=why))
        return _result(rooms, id_, judged)
    story.progress("writing its features online", 0.4)
    story.step("features online", lambda: [put_online(rooms, one, request.actor) for one in asked.versions])
    if asked.canary is not None or asked.shadow is not None or asked.experiment is not None:
        return _try(rooms, story, asked, id_, request, judged)
    story.commit("promote", lambda tx: make_live(rooms, tx, id_, request.actor))
    story.progress("pushing to the gateways", 0.7)
    try:
        pushed = msgspec.convert(story.step("push", lambda: msgspec.to_builtins(rooms.publish())), Published)
    except TautError as error:  # no gateway has it: what was live stays live, in the records too
        why = f"could not be pushed: {error.code}: {error}"
        story.commit("undo", lambda tx: take_back(rooms, tx, id_, request.actor, why))
        raise
    if pushed.refused:
        why = "; ".join(f"{gateway}: {reason}" for gateway, reason in pushed.refused.items())
        why = f"refused by a gateway: {why}"
        story.commit("undo", lambda tx: take_back(rooms, tx, id_, request.actor, why))
        story.step(
            "push again", lambda: msgspec.to_builtins(push_back(rooms, request.endpoint, request.actor))
        )
        judged = {"decision": "reject", "reasons": [why]}
    return _result(rooms, id_, judged, pushed)


def _look(rooms: Rooms, asked: _Asked, id_: str, request: ReleaseRequest) -> Evidence:
    return release_evidence(
        rooms, asked.endpoint, asked.versions, id_, strategy=request.strategy, despite=request.despite
    )


def _try(
    rooms: Rooms, story: Story, asked: _Asked, id_: str, request: ReleaseRequest, judged: dict[str, Any]
) -> ReleaseResult:
    """Let a shadow lie ready, or give what is tried its first callers; from there on `taut.workflows.shadow`, `taut.workflows.canary` or
    `taut.workflows.experiment` judges it."""
    story.commit("begin", lambda tx: _begin(rooms, tx, id_, asked, request.actor))
    story.progress(f"pushing {_tried(asked, request.strategy)} to the gateways", 0.7)
    pushed = msgspec.convert(story.step("push", lambda: msgspec.to_builtins(rooms.publish())), Published)
    if pushed.refused:
        why = "; ".join(f"{gateway}: {reason}" for gateway, reason in pushed.refused.items())
        why = f"refused by a gateway: {why}"
        story.commit("undo", lambda tx: rooms.releases.abort(tx, id_, actor=request.actor, reason=why))
        story.step("push again", lambda: msgspec.to_builtins(rooms.publish()))
        judged = {"decision": "reject", "reasons": [why]}
    return _result(rooms, id_, judged, pushed)


def _begin(rooms: Rooms, tx: Tx, id_: str, asked: _Asked, actor: str) -> int:
    if asked.experiment is not None:
        rooms.releases.experiments.begin(tx, id_, asked.experiment, actor=actor)
    elif asked.shadow is not None:
        rooms.releases.shadows.begin(tx, id_, asked.shadow, actor=actor)
    elif asked.canary is not None:
        rooms.releases.canaries.begin(tx, id_, asked.canary, actor=actor)
    return rooms.releases.raise_epoch(tx)


def roll_back(
    rooms: Rooms, *, endpoint: str, to: str | None, actor: str, reason: str
) -> tuple[ReleaseInfo, Published]:
    """Return an endpoint to an earlier release and push it: one transaction, its features, then one message to each gateway.

    The target's artifact is verified first: a rollback to a damaged version is refused, what is live stays live. Raises as `push_back`.
    """
    target = rooms.releases.rollback_target(endpoint, to=to)
    rooms.registry.load(VersionRef.parse(target.version), to_serve=True)

    info = transact(
        rooms.records, lambda tx: roll_back_in(rooms, tx, endpoint, target.release, actor, reason)
    )
    return info, push_back(rooms, endpoint, actor)


def push_back(rooms: Rooms, endpoint: str, actor: str) -> Published:
    """Push the way back to what answers now, after its feature sets are online as it means them.

    Raises what kept a set from being written, once gateways were told all the same: the version that was left must not answer on.
    """
    try:
        features_back(rooms, endpoint, actor)
    except TautError:
        rooms.publish()
        raise
    return rooms.publish()


def features_back(rooms: Rooms, endpoint: str, actor: str) -> list[str]:
    """Put online again what the version that answers at an endpoint looks up, by its own definition; return the names of its sets."""
    with rooms.records.read() as tx:
        live = [route.version for route in rooms.releases.routes(tx) if route.endpoint == endpoint]
    return [name for version in live for name in put_online(rooms, version, actor)]


def put_online(rooms: Rooms, version: VersionRef, actor: str) -> list[str]:
    """Write online what the version looks up and is not there whole, or by another definition than its own; return the names of its sets.

    Raises Conflict where the newest materialisation lacks a feature of the version, or of a live one.
    """
    signature = rooms.registry.signature(version)
    names = [lookup.feature_set for lookup in signature.lookups]
    for name in names:
        state = rooms.features.online_state(name)
        online = (
            None if state is None else state.materialisation
        )  # None also where the first writing was cut short
        wanted = None if online is None else out_of_step(rooms, version, name)
        if wanted or online is None or _lacking(rooms.features.materialisation(name, online), signature):
            made = rooms.features.materialisation(name, wanted)
            _feed(made, version, signature)
            materialize(rooms, name, actor=actor, version=made.id)
    return names


def materialize(
    rooms: Rooms, name: str, *, actor: str, version: str | None = None, until: datetime | None = None
) -> OnlineState:
    """Write a feature set online and let the gateways know where its columns stand.

    until: only what was known at that time. Raises Conflict when a version that answers, live or tried, needs a feature that would be gone,
    else as `FeatureStore.materialize`.
    """
    spec = features_of(rooms.plans.require(), name)
    made = rooms.features.materialisation(name, version)
    with rooms.records.read() as tx:
        needed = {route.version for route in rooms.releases.routes(tx)}
        needed |= tried_beside(rooms, tx)
    for ref in sorted(needed, key=str):
        _feed(made, ref, rooms.registry.signature(ref))
    return rooms.features.materialize(
        spec, actor=actor, materialisation=made.id, until=until, announce=rooms.publish
    )


def _feed(made: Materialisation, version: VersionRef, signature: ModelSignature) -> None:
    """Raise Conflict when a version could not be answered from a materialisation's rows."""
    lacking = _lacking(made, signature)
    if lacking:
        raise Conflict(
            f"{version} needs {', '.join(lacking)} of feature set {made.spec.name}, and {made.id} has no such "
            "column: build the set with it, or release a version that does without first"
        )


def _lacking(made: Materialisation, signature: ModelSignature) -> list[str]:
    """Return the features of a set that a version needs and a materialisation does not have, in name or type."""
    has = {(name, made.schema[name].dtype) for name in made.features}
    return [
        item.column.name
        for item in signature.inputs
        if item.feature_set == made.spec.name and (item.column.name, item.column.dtype) not in has
    ]


def _start(rooms: Rooms, tx: Tx, version: VersionRef, request: ReleaseRequest, approvals: list[str]) -> str:
    return rooms.releases.start(
        tx, endpoint=request.endpoint, version=version, strategy=request.strategy, actor=request.actor,
        reason=request.reason, approvals=approvals,
    )  # fmt: skip


def _judge(rooms: Rooms, tx: Tx, evidence: Evidence, request: ReleaseRequest) -> dict[str, Any]:
    verdict = rooms.releases.judge(tx, evidence, actor=request.actor)
    frozen = next((one.observed for one in evidence.checks if one.name == "unfrozen"), None)
    if frozen is not None:
        body = {"reason": request.despite, "frozen": frozen}
        rooms.ledger.append(tx, Entry("release.unfrozen", evidence.subject, request.actor, body))
    return {"decision": str(verdict.decision), "reasons": list(verdict.reasons)}


def make_live(rooms: Rooms, tx: Tx, id_: str, actor: str) -> int:
    """Let a started release answer everybody, and the registry know; return the new epoch."""
    before = _answering(rooms, tx)
    epoch = rooms.releases.promote(tx, id_, actor=actor)
    _note_live(rooms, tx, before, actor, f"release {id_}")
    return epoch


def take_back(rooms: Rooms, tx: Tx, id_: str, actor: str, reason: str) -> bool:
    """Return to what was live before a release, or to nothing; one that is not live any more stays as it is. `push_back` follows."""
    before = _answering(rooms, tx)
    was_live = rooms.releases.withdraw(tx, id_, actor=actor, reason=reason)
    _note_live(rooms, tx, before, actor, reason)
    return was_live


def roll_back_in(rooms: Rooms, tx: Tx, endpoint: str, to: str | None, actor: str, reason: str) -> ReleaseInfo:
    """Return an endpoint to an earlier release, and let the registry know, if and only if `tx` commits. The caller has verified
    the target; `push_back` follows."""
    before = _answering(rooms, tx)
    info, _ = rooms.releases.roll_back(tx, endpoint=endpoint, to=to, actor=actor, reason=reason)
    _note_live(rooms, tx, before, actor, f"rolled back: {reason}")
    return info


def _answering(rooms: Rooms, tx: Tx) -> set[VersionRef]:
    return {route.version for route in rooms.releases.routes(tx)}


def _note_live(rooms: Rooms, tx: Tx, before: set[VersionRef], actor: str, reason: str) -> None:
    """Let the registry know which versions answer now, at whatever endpoint, where that changed."""
    now = _answering(rooms, tx)
    for model in sorted({ref.name for ref in before ^ now}):
        versions = {ref for ref in now if ref.name == model}
        rooms.registry.mark_answering(tx, model, versions, actor=actor, reason=reason)


def _words(rooms: Rooms, version: VersionRef) -> list[Any]:
    return [word for word in rooms.registry.show(version).approvals if word.approved]


def _tried(asked: _Asked, strategy: str) -> str:
    if asked.experiment is None:
        return f"a {strategy} release"
    return f"an experiment of {len(asked.experiment.arms)} versions ({prospects(asked.experiment)})"


def _result(rooms: Rooms, id_: str, judged: dict[str, Any], pushed: Published | None = None) -> ReleaseResult:
    info = rooms.releases.show(id_)
    with rooms.records.read() as tx:
        canary, experiment = rooms.releases.canaries.find(tx, id_), rooms.releases.experiments.find(tx, id_)
    return ReleaseResult(
        step=None if canary is None else canary.state.step, guardrails=() if canary is None else canary.plan.guardrails,
        release=info.release, endpoint=info.endpoint, version=info.version, strategy=info.strategy,
        state=str(info.state), verdict=judged["decision"], reasons=tuple(judged["reasons"]), weight=info.weight,
        epoch=0 if pushed is None else pushed.epoch, gateways=0 if pushed is None else len(pushed.applied),
        arms=() if experiment is None else experiment.plan.arms,
        prospects="" if experiment is None else prospects(experiment.plan),
    )  # fmt: skip
