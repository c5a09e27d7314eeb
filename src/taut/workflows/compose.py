"""Compose a graph: pin a version of each node, measure the whole, and bring it before the model gate as a version of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taut.core.canonical import digest_bytes, digest_json
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.evidence import Check, Decision, Outcome
from taut.core.graphs import GraphPlan, Pin, check_shape, graph_signature
from taut.core.refs import VersionRef
from taut.lifecycle.registry import Candidate, File, GateInputs, ModelState, VersionInfo
from taut.ports.stories import Story
from taut.project.declared import graph_of
from taut.project.manifest import GraphSpec
from taut.project.words import nearest
from taut.workflows.graph_rows import GraphRows, common_rows, constant_baseline, scores_of, try_graph
from taut.workflows.live import live_version
from taut.workflows.rooms import Rooms
from taut.workflows.supply import audit_of
from taut.workflows.train import TrainResult

_LISTED: Final = 10_000
_WORST: Final = (Outcome.PASSED, Outcome.HELD, Outcome.SKIPPED, Outcome.ERRORED, Outcome.FAILED)
_OF_NODES: Final = ("leakage", "own_metrics", "conversion")


class ComposeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """versions: node -> `model@number`, instead of the one that is live or the newest that may serve."""

    graph: str
    actor: str
    versions: dict[str, str] = {}


class Composed(msgspec.Struct, frozen=True, kw_only=True):
    """A graph with its nodes pinned: nothing that is trained, approved or declared meanwhile changes it.

    plan: digest of its bytes, in Blobs. versions: of each node that is a model. lock: the environment that measures it.
    """

    spec: GraphSpec
    plan: str
    versions: dict[str, str]
    bundle: str
    lock: str

    @property
    def id(self) -> str:
        """Stands where a model has its run: the same nodes under the same rules are the same version."""
        rules = [self.spec.gates, self.spec.approvals, self.spec.risk]
        return f"graph-{digest_json([self.spec.name, self.plan, rules]).removeprefix('sha256:')[:24]}"


def compose(rooms: Rooms, story: Story, request: ComposeRequest) -> TrainResult:
    """Tell the story. Each step may run twice and changes nothing the second time."""
    story.progress("pinning the nodes", 0.0)
    composed = msgspec.convert(
        story.step("pin", lambda: msgspec.to_builtins(pin_graph(rooms, request))), Composed
    )
    story.progress(f"measuring {', '.join(composed.versions.values())} together", 0.2)
    judged = story.step("judge", lambda: judge_graph(rooms, composed, actor=request.actor))
    return TrainResult(
        run=composed.id, version=judged["version"], metrics=judged["metrics"], baselines=judged["baselines"],
        verdict=judged["verdict"], reasons=tuple(judged["reasons"]),
    )  # fmt: skip


def pin_graph(rooms: Rooms, request: ComposeRequest) -> Composed:
    """Choose the versions and write the plan.

    Raises NotFound for a graph that is not declared, or a node without a version that may serve; Conflict for a named one
    that may not; InvalidInput where the versions do not fit together.
    """
    manifest = rooms.plans.require()
    spec = graph_of(manifest, request.graph)
    nodes = {node.name: node for node in spec.nodes if node.kind == "model"}
    for name in request.versions:
        if name not in nodes:
            raise InvalidInput(
                f"graph {spec.name} has no node {name!r} that is a model{nearest(name, nodes)}"
            )
    pins, versions = {}, {}
    for name, node in nodes.items():
        info = _chosen(rooms, name, node.model, request.versions.get(name))
        loaded = rooms.registry.load(info.ref, to_serve=True)
        if loaded.signature.form == "graph":
            raise InvalidInput(f"node {name!r}: {info.ref} is a graph: name its nodes instead")
        pins[name] = Pin(version=str(info.ref), artifact=loaded.model_digest, signature=loaded.signature)
        versions[name] = str(info.ref)
    ordered = check_shape(spec.nodes, spec.output)
    graph_signature(ordered, spec.output, {name: pin.signature for name, pin in pins.items()})
    plan = GraphPlan(nodes=tuple(ordered), pins=pins, output=spec.output)
    return Composed(
        spec=spec,
        plan=rooms.blobs.put(plan.to_bytes()),
        versions=versions,
        bundle=manifest.bundle,
        lock=rooms.environment_lock,
    )


def _chosen(rooms: Rooms, node: str, model: str, given: str | None) -> VersionInfo:
    if given is not None:
        ref = rooms.registry.resolve(given, model=model)
        info = rooms.registry.show(ref)
        if ref.name != model:
            raise InvalidInput(f"node {node!r} is of model {model}, {ref} is not: name a version of {model}")
        if not info.releasable:
            raise Conflict(f"node {node!r}: {ref} is {info.state}: only an approved version becomes a node")
        return info
    live = live_version(rooms, model)
    if live is not None:
        return rooms.registry.show(live)
    found = next((info for info in rooms.registry.list(model=model, limit=_LISTED) if info.releasable), None)
    if found is None:
        raise NotFound(
            f"node {node!r}: {model} has no approved version: `taut train {model}`, and approve what the gate admits"
        )
    return found


def judge_graph(rooms: Rooms, composed: Composed, *, actor: str) -> dict[str, Any]:
    """Measure a composed graph, register it, judge it; return `{"version", "verdict", "reasons", "metrics", "baselines"}`.

    The gate is that of every model. Parity is with what the nodes say by themselves, each asked as its own endpoint would
    be, and put together by other code than that which serves.
    """
    plan = rooms.blobs.read(composed.plan)
    signature, infos = _signature(plan), _infos(rooms, composed)
    known = rooms.registry.of_run(composed.id)
    if known is None or rooms.registry.show(known).verdict is None:
        rows = common_rows(rooms, composed.spec, infos, signature)
        tried = try_graph(rooms, plan, rows.frames, infos, reference=True)
        metrics = scores_of(rows.holdout[rows.label], tried.references[0], signature)
        candidate = _candidate(composed, plan, rows, infos, metrics, actor=actor)
        info = rooms.registry.register(candidate)
        inputs = GateInputs(
            score=tried.scorer(rooms, plan, rows.frames, infos), holdout=rows.holdout,
            parity=rows.with_said(tried.references[1]), live=live_version(rooms, composed.spec.name),
            latency_ms=tried.latency_ms, audit=audit_of(rooms, candidate.lock),
        )  # fmt: skip
        known = rooms.registry.judge(info.ref, inputs, actor=actor).ref
    info = rooms.registry.show(known)
    assert info.verdict is not None, "it was judged just now, or before"
    decision, reasons = info.verdict.decision, list(info.verdict.reasons)
    if info.state in (ModelState.REJECTED, ModelState.RETIRED) and decision is not Decision.REJECT:
        decision, reasons = (
            Decision.REJECT,
            [f"{info.ref}, of the same versions and rules, was {info.state} before"],
        )
    return {
        "version": str(info.ref), "verdict": str(decision), "reasons": reasons,
        "metrics": info.candidate.metrics, "baselines": info.candidate.baselines,
    }  # fmt: skip


def _signature(plan: bytes) -> Any:
    from taut.core.graphs import read_plan
    from taut.serving.runtime.graph import signature_of

    return signature_of(read_plan(plan))


def _infos(rooms: Rooms, composed: Composed) -> dict[str, VersionInfo]:
    return {node: rooms.registry.show(VersionRef.parse(one)) for node, one in composed.versions.items()}


def _candidate(
    composed: Composed,
    plan: bytes,
    rows: GraphRows,
    infos: Mapping[str, VersionInfo],
    metrics: dict[str, float],
    *,
    actor: str,
) -> Candidate:
    spec, signature = composed.spec, _signature(plan)
    nodes = {node.name: node for node in spec.nodes}
    files = {signature.file: File(digest=digest_bytes(plan), size_bytes=len(plan))}
    snapshots: dict[str, str] = {}
    features: dict[str, str] = {}
    for name, info in infos.items():
        own = info.candidate
        files[f"{name}.{own.signature.file}"] = own.artifact
        snapshots |= own.snapshots
        features |= own.features
    output = nodes[spec.output]
    return Candidate(
        model=spec.name, run=composed.id, author=actor, files=files, signature=signature, label=rows.label,
        metrics=metrics, baselines={"constant": dict(constant_baseline(rows, signature))}, snapshots=snapshots,
        features=features, bundle=composed.bundle, lock=composed.lock,
        data=digest_json([info.candidate.data for info in infos.values()]), seed=0, rules=spec.gates,
        approvals=spec.approvals, checks=tuple(_of_nodes(name, infos) for name in _OF_NODES), risk=spec.risk,
        description=spec.description, nodes=composed.versions, environment={"nodes": composed.versions},
        model_kind=f"graph: {output.kind.replace('_', ' ')} of {', '.join(output.of)}" if output.of else "graph",
    )  # fmt: skip


def _of_nodes(name: str, infos: Mapping[str, VersionInfo]) -> Check:
    """Say what training found of the nodes: a graph is no better than the worst of them."""
    found = [
        (node, check) for node, info in infos.items() for check in info.candidate.checks if check.name == name
    ]
    if len(found) != len(infos):
        return Check(
            name=name, outcome=Outcome.SKIPPED, message="not every node was looked at: train it anew"
        )
    node, worst = max(found, key=lambda item: _WORST.index(item[1].outcome))
    said = (
        f"holds for each of {', '.join(infos)}"
        if worst.outcome is Outcome.PASSED
        else f"node {node!r}: {worst.message}"
    )
    return Check(name=name, outcome=worst.outcome, message=said)
