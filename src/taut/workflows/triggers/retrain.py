"""Train a model anew because a trigger said so: screen what is new, train, wait for people, release."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from taut.core.errors import NotFound
from taut.core.evidence import Evidence
from taut.ports.records import Tx
from taut.ports.stories import Story
from taut.project.declared import endpoint_of, model_of
from taut.trust.ledger import Entry
from taut.workflows.pipeline import decided
from taut.workflows.release import ReleaseRequest, ReleaseResult, release
from taut.workflows.rooms import Rooms
from taut.workflows.train import TrainRequest, TrainResult, pin, train
from taut.workflows.triggers.rights import refusal
from taut.workflows.triggers.screen import GATE, screen


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of the model. refused: why the version is not released there by itself, whatever changes."""

    name: str
    refused: str = ""


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """plan: digest of the manifest that `actor` applied: in his name nothing else is trained."""

    model: str
    number: int
    reasons: tuple[str, ...]
    actor: str
    plan: str
    endpoints: tuple[Target, ...] = ()
    approval_timeout_s: float = 7 * 86_400.0


class RetrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """decision: what became of it, in a word or two. releases: what was begun at each endpoint."""

    decision: str
    run: str = ""
    version: str = ""
    metrics: dict[str, float] = {}
    reasons: tuple[str, ...] = ()
    releases: tuple[ReleaseResult, ...] = ()


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, so that this and nothing else is trained on."""

    snapshots: dict[str, str]
    evidence: Evidence


def retrain(rooms: Rooms, story: Story, request: RetrainRequest) -> RetrainResult:
    """Tell the story. What it trains goes through every gate that a person's run does; so does each release.

    Raises Conflict where another plan was applied since it began: whoever applied this one answers for no other.
    """
    story.progress("looking at what is new", 0.0)
    seen = msgspec.convert(
        story.step("screen", lambda: msgspec.to_builtins(_screen(rooms, request))), Screened
    )
    refused = story.commit("judge what is new", lambda tx: _judge(rooms, tx, seen.evidence, request))
    if refused:
        return RetrainResult(decision="not trained", reasons=tuple(refused))
    asked = TrainRequest(
        model=request.model, actor=request.actor, plan=request.plan, snapshots=seen.snapshots
    )
    trained = train(rooms, story, asked)
    if trained.verdict == "reject":
        return _result("rejected", trained)
    decision = decided(rooms, story, trained.version, timeout_s=request.approval_timeout_s)
    if decision not in ("admitted", "approved"):
        return _result(decision, trained)
    return _result(decision, trained, *release_each(rooms, story, request, trained.version))


def release_each(
    rooms: Rooms, story: Story, request: RetrainRequest, version: str
) -> tuple[tuple[ReleaseResult, ...], tuple[str, ...]]:
    """Release a version where it is allowed; return what was begun, and why it is not released elsewhere.

    Whether it may is asked again: people decide within a week, in which rights, accounts and plans change.
    """
    releases, left = [], []
    for one in request.endpoints:
        may = {"refused": one.refused}
        if not one.refused:
            may = story.step(f"may it be released at {one.name}", partial(_may, rooms, request, one.name))
        if may["refused"]:
            left.append(f"not released at {one.name}: {may['refused']}")
            continue
        asked = ReleaseRequest(
            endpoint=one.name, version=version, strategy=may["strategy"], actor=request.actor,
            reason=f"trigger {request.number}: {'; '.join(request.reasons)}"[:300],
        )  # fmt: skip
        releases.append(release(rooms, story, asked))
    return tuple(releases), tuple(left)


def _screen(rooms: Rooms, request: RetrainRequest) -> Screened:
    pinned = pin(rooms, request.model, plan=request.plan)
    return Screened(snapshots=pinned.snapshots, evidence=screen(rooms, request.model, pinned))


def _may(rooms: Rooms, request: RetrainRequest, endpoint: str) -> dict[str, str]:
    """Return why a version is not released now, and by which strategy it is otherwise: as the plan says that holds now."""
    manifest = rooms.plans.require()
    try:
        spec, rules = endpoint_of(manifest, endpoint), model_of(manifest, request.model).retraining
    except NotFound as error:
        return {"refused": error.message}
    if spec.model != request.model or not rules.release:
        return {"refused": "the plan that holds now releases it there by nobody's word but a person's"}
    refused = refusal(rooms, request.actor, "release.start", f"endpoint:{endpoint}")
    return {"refused": refused, "strategy": spec.release.kind}


def _judge(rooms: Rooms, tx: Tx, evidence: Evidence, request: RetrainRequest) -> list[str]:
    """Leave the verdict in the ledger and return why nothing is trained; nothing where something is."""
    verdict = GATE.judge(evidence)
    body: dict[str, Any] = {
        "decision": str(verdict.decision), "reasons": len(verdict.reasons), "evidence": evidence.digest,
        "number": request.number, "subject": evidence.subject,
    }  # fmt: skip
    details = {
        "reasons": list(verdict.reasons),
        "evidence": msgspec.to_builtins(evidence),
    }  # quotes data: erasable
    rooms.ledger.append(tx, Entry("trigger.judged", f"model:{request.model}", "control", body, details))
    return [] if verdict.admitted else list(verdict.reasons)


def _result(
    decision: str, trained: TrainResult, releases: tuple[ReleaseResult, ...] = (), left: tuple[str, ...] = ()
) -> RetrainResult:
    return RetrainResult(
        decision=decision, run=trained.run, version=trained.version, metrics=trained.metrics,
        reasons=(*trained.reasons, *left), releases=releases,
    )  # fmt: skip
