"""The whole way of a model as one story: ingest, train, wait for people, release."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from taut.core.evidence import Scalar
from taut.core.refs import VersionRef
from taut.ports.stories import Story
from taut.project.declared import dataset_of
from taut.workflows.compose import ComposeRequest, compose
from taut.workflows.decisions import decision_signal
from taut.workflows.release import ReleaseRequest, ReleaseResult, release
from taut.workflows.rooms import Rooms
from taut.workflows.train import TrainRequest, TrainResult, train


class TrainAndRelease(msgspec.Struct, frozen=True, kw_only=True):
    """ingest: datasets to bring up to date first. approval_timeout_s: how long a person has to decide."""

    model: str
    endpoint: str
    actor: str
    ingest: tuple[str, ...] = ()
    strategy: str = "direct"
    params: dict[str, Scalar] = {}
    approval_timeout_s: float = 7 * 86_400.0


class TrainAndReleaseResult(msgspec.Struct, frozen=True, kw_only=True):
    ingested: tuple[dict[str, Any], ...] = ()
    training: TrainResult | None = None
    decision: str = ""
    release: ReleaseResult | None = None


def train_and_release(rooms: Rooms, story: Story, request: TrainAndRelease) -> TrainAndReleaseResult:
    """ingest → data gate → snapshot → features → train → model gate → register → approval → release → verify.

    Ends early, with the reasons, where a gate rejects or a person does.
    """
    ingested = []
    for name in request.ingest:
        result = story.step(f"ingest {name}", partial(_ingest, rooms, name, request.actor, key=story.id))
        ingested.append(result)
        if result["rejected"]:
            return TrainAndReleaseResult(ingested=tuple(ingested), decision="data rejected")
    trained = _trained(rooms, story, request)
    if trained.verdict == "reject":
        return TrainAndReleaseResult(ingested=tuple(ingested), training=trained, decision="rejected")
    decision = decided(rooms, story, trained.version, timeout_s=request.approval_timeout_s)
    if decision not in ("admitted", "approved"):
        return TrainAndReleaseResult(ingested=tuple(ingested), training=trained, decision=decision)
    asked = ReleaseRequest(
        endpoint=request.endpoint, version=trained.version, strategy=request.strategy, actor=request.actor,
        reason=f"trained by run {trained.run}",
    )  # fmt: skip
    released = release(rooms, story, asked)
    return TrainAndReleaseResult(
        ingested=tuple(ingested), training=trained, decision=decision, release=released
    )


def decided(rooms: Rooms, story: Story, version: str, *, timeout_s: float) -> str:
    """Return `admitted` for a version that may go, else what people decided about it, or `timed out`."""
    if story.step("may it go", lambda: rooms.registry.show(VersionRef.parse(version)).releasable):
        return "admitted"
    story.progress(f"waiting for a decision on {version}: `taut model approve`", 0.95)
    told_by = story.wait(decision_signal(version), timeout=timedelta(seconds=timeout_s))
    return "timed out" if told_by is None else str(told_by)


def _trained(rooms: Rooms, story: Story, request: TrainAndRelease) -> TrainResult:
    if story.step("graph or model", lambda: is_graph(rooms, request.model)):
        return compose(rooms, story, ComposeRequest(graph=request.model, actor=request.actor))
    return train(rooms, story, TrainRequest(model=request.model, actor=request.actor, params=request.params))


def is_graph(rooms: Rooms, name: str) -> bool:
    return any(spec.name == name for spec in rooms.plans.require().graphs)


def _ingest(rooms: Rooms, name: str, actor: str, *, key: str) -> Any:
    manifest = rooms.plans.require()
    dataset = dataset_of(manifest, name)
    result = rooms.data.ingest(dataset, root=Path(manifest.root), actor=actor, request=f"{key}/{name}")
    return msgspec.to_builtins(result)
