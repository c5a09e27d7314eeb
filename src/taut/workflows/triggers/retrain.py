"""Train a model anew because a trigger said so: screen what is new, train, wait for people, release."""

from __future__ import annotations

from typing import Any

import msgspec

from taut.core.evidence import Evidence
from taut.ports.records import Tx
from taut.ports.stories import Story
from taut.trust.ledger import Entry
from taut.workflows.pipeline import decided
from taut.workflows.release import ReleaseRequest, ReleaseResult, release
from taut.workflows.rooms import Rooms
from taut.workflows.train import TrainRequest, TrainResult, train
from taut.workflows.triggers.screen import GATE, screen


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of the model. refused: why the version is not released there by itself."""

    name: str
    strategy: str
    refused: str = ""


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """learned: dataset -> snapshot that the run before learned from."""

    model: str
    number: int
    reasons: tuple[str, ...]
    actor: str
    learned: dict[str, int] = {}
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


def retrain(rooms: Rooms, story: Story, request: RetrainRequest) -> RetrainResult:
    """Tell the story. What it trains goes through every gate that a person's run does; so does each release."""
    story.progress("looking at what is new", 0.0)
    evidence = msgspec.convert(
        story.step("screen", lambda: msgspec.to_builtins(screen(rooms, request.model, request.learned))),
        Evidence,
    )
    refused = story.commit("judge what is new", lambda tx: _judge(rooms, tx, evidence, request))
    if refused:
        return RetrainResult(decision="not trained", reasons=tuple(refused))
    trained = train(rooms, story, TrainRequest(model=request.model, actor=request.actor))
    if trained.verdict == "reject":
        return _result("rejected", trained)
    decision = decided(rooms, story, trained.version, timeout_s=request.approval_timeout_s)
    if decision not in ("admitted", "approved"):
        return _result(decision, trained)
    releases, left = [], []
    for one in request.endpoints:
        if one.refused:
            left.append(f"not released at {one.name}: {one.refused}")
            continue
        asked = ReleaseRequest(
            endpoint=one.name, version=trained.version, strategy=one.strategy, actor=request.actor,
            reason=f"trigger {request.number}: {'; '.join(request.reasons)}"[:300],
        )  # fmt: skip
        releases.append(release(rooms, story, asked))
    return _result(decision, trained, tuple(releases), tuple(left))


def _judge(rooms: Rooms, tx: Tx, evidence: Evidence, request: RetrainRequest) -> list[str]:
    """Leave the verdict in the ledger and return why nothing is trained; nothing where something is."""
    verdict = GATE.judge(evidence)
    body: dict[str, Any] = {
        "decision": str(verdict.decision), "reasons": list(verdict.reasons), "evidence": evidence.digest,
        "number": request.number, "subject": evidence.subject,
    }  # fmt: skip
    rooms.ledger.append(tx, Entry("trigger.judged", f"model:{request.model}", "control", body))
    return [] if verdict.admitted else list(verdict.reasons)


def _result(
    decision: str, trained: TrainResult, releases: tuple[ReleaseResult, ...] = (), left: tuple[str, ...] = ()
) -> RetrainResult:
    return RetrainResult(
        decision=decision, run=trained.run, version=trained.version, metrics=trained.metrics,
        reasons=(*trained.reasons, *left), releases=releases,
    )  # fmt: skip
