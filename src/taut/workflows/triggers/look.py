"""What triggers look at, gathered from the rooms: snapshots, alerts, outcomes, runs, releases under way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from taut.core.refs import VersionRef
from taut.lifecycle.monitoring.doubt import Weighed, weigh
from taut.lifecycle.monitoring.outcomes import Outcomes
from taut.lifecycle.monitoring.store import Kept
from taut.lifecycle.training import RunState
from taut.lifecycle.triggers import DAY, Firing, Seen, Spent, State, Triggers, Watched
from taut.ports.stories import Stories
from taut.project.declared import features_of, model_of
from taut.project.manifest import EndpointSpec, Manifest, ModelSpec
from taut.project.triggers import leaves
from taut.trust.findings import Findings, Sighting
from taut.workflows.rooms import Rooms
from taut.workflows.triggers.rights import refusal

FAILED: Final = "training.failed"
_ALARMS: Final = {"model.drift": "drift", "model.quality": "quality"}
_RUNS: Final = 200
_OUTCOMES: Final = 20_000
_ALERTS: Final = 1000


def triggers_of(rooms: Rooms, stories: Stories) -> Triggers:
    return Triggers(rooms.records, rooms.ledger, rooms.clock, stories)


def with_triggers(manifest: Manifest | None) -> tuple[ModelSpec, ...]:
    return () if manifest is None else tuple(spec for spec in manifest.models if spec.triggers)


def look(rooms: Rooms, stories: Stories, findings: Findings, outcomes: Outcomes) -> None:
    """Look at the triggers of every model, and open an alert for each run that failed or that the data kept from beginning."""
    triggers = triggers_of(rooms, stories)
    for spec in with_triggers(rooms.plans.current()):
        ended = triggers.look(watched(rooms, spec.name, triggers, findings, outcomes))
        if ended is not None:
            findings.observe([f"{FAILED}.{spec.name}"[:64]], tuple(_failure(spec.name, ended)))


def watched(rooms: Rooms, model: str, triggers: Triggers, findings: Findings, outcomes: Outcomes) -> Watched:
    """Gather what is known of a model now. Raises NotFound for one that is not declared."""
    manifest, info = rooms.plans.require(), rooms.plans.current_info()
    assert info is not None, "a plan holds"
    spec = model_of(manifest, model)
    endpoints = tuple(one for one in manifest.endpoints if one.model == model)
    state = triggers.remembered(model) or State()
    weighed = _outcomes(rooms, spec, endpoints, outcomes, state)
    snapshots, added = _data(rooms, manifest, spec, state)
    newest = rooms.training.list(model=model, state=RunState.DONE, limit=1)
    now = rooms.clock.now()
    seen = Seen(
        snapshots=snapshots, added=added,
        learned={name: VersionRef.parse(ref).number for run in newest for name, ref in run.data.snapshots.items()},
        code="".join(run.code.bundle for run in newest), now_code=manifest.bundle,
        alarms=_alarms(rooms, endpoints, findings), outcomes=weighed.counted, doubted=weighed.doubted,
        spent=Spent(
            runs=triggers.spent(model),
            cpu_s=sum(run.cpu_seconds for run in rooms.training.list(model=model, limit=_RUNS) if run.started_at >= now - DAY),
        ),
        busy=_busy(rooms, model, endpoints), refused=refusal(rooms, info.actor, "train", f"model:{model}"),
    )  # fmt: skip
    released = [one for one in endpoints if spec.retraining.release]
    request: dict[str, Any] = {
        "actor": info.actor, "plan": manifest.digest,
        "endpoints": [
            {"name": one.name, "refused": refusal(rooms, info.actor, "release.start", f"endpoint:{one.name}")}
            for one in released
        ],
    }  # fmt: skip
    return Watched(
        model=model,
        triggers=spec.triggers,
        rules=spec.retraining,
        seen=seen,
        actor=info.actor,
        request=request,
    )


def _data(
    rooms: Rooms, manifest: Manifest, spec: ModelSpec, state: State
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the current snapshot of each dataset that the model learns from, and rows new in those that triggers look at."""
    names = {spec.dataset, *(name for one in spec.features for name in features_of(manifest, one).sources)}
    looked_at = {one.dataset for one in leaves(spec.triggers) if one.dataset}
    snapshots, added = {}, {}
    for name in sorted(names | looked_at):
        number, rows = rooms.data.added(name, since=state.learned.get(name, 0))
        snapshots[name] = number
        if name in looked_at:
            added[name] = rows
    return snapshots, added


def _alarms(
    rooms: Rooms, endpoints: tuple[EndpointSpec, ...], findings: Findings
) -> dict[str, tuple[str, ...]]:
    """Return open alerts about the versions that answer now, by what triggers call them."""
    with rooms.records.read() as tx:
        live = {(f"endpoint:{route.endpoint}", str(route.version)) for route in rooms.releases.routes(tx)}
    mine = {f"endpoint:{one.name}" for one in endpoints}
    found: dict[str, tuple[str, ...]] = {}
    for one in sorted(findings.list(state="open", limit=_ALERTS), key=lambda one: one.id):
        if one.kind in _ALARMS and one.resource in mine and (one.resource, one.group) in live:
            found[_ALARMS[one.kind]] = (*found.get(_ALARMS[one.kind], ()), one.id)
    return found


def _outcomes(
    rooms: Rooms, spec: ModelSpec, endpoints: tuple[EndpointSpec, ...], outcomes: Outcomes, state: State
) -> Weighed:
    """Weigh what was told since the last run, once there is enough of it for a trigger."""
    wanted = [one.count for one in leaves(spec.triggers) if one.kind == "feedback"]
    names = [one.name for one in endpoints]
    if not wanted or not names:
        return Weighed(counted=0)
    with rooms.records.read() as tx:
        told = outcomes.count(tx, names, state.since_us)
        if told < min(wanted):
            return Weighed(counted=told)
    outcomes.ready()
    kept = Kept(rooms.records, rooms.clock)
    with rooms.records.read() as tx:
        versions = {str(route.version) for route in rooms.releases.routes(tx) if route.endpoint in names}
        found = outcomes.since(tx, names, state.since_us, limit=max(_OUTCOMES, 2 * min(wanted)))
    errors = [known.error for version in versions if (known := kept.reference(version)) is not None]
    return weigh(
        found, share=spec.retraining.share, error=min((e for e in errors if e is not None), default=None)
    )


def _busy(rooms: Rooms, model: str, endpoints: tuple[EndpointSpec, ...]) -> str:
    """Return why no run may begin now: another one of the model, or a release under way at one of its endpoints."""
    running = rooms.training.list(model=model, state=RunState.RUNNING, limit=1)
    if running:
        return f"{running[0].id} is under way"
    for endpoint in endpoints:
        for one in rooms.releases.history(endpoint.name, limit=1):
            if one.state == "started":
                return f"release {one.release} of {one.version} at {endpoint.name} is under way"
    return ""


def _failure(model: str, firing: Firing) -> Iterator[Sighting]:
    outcome = firing.outcome or {}
    decision, error = outcome.get("decision", ""), outcome.get("error", "")
    if not error and decision != "not trained":
        return
    # why it was not trained quotes data, and alerts are for ever
    why = error or f"the screening of what is new refused it, `taut trigger list {model}` says why"
    yield Sighting(
        kind=f"{FAILED}.{model}"[:64], group=f"firing {firing.number}", resource=f"model:{model}", score=1.0, severity="warning",
        summary=f"{model} was to be trained anew ({'; '.join(firing.reasons)}) and was not: {why}"[:1000],
        evidence={"firing": firing.number, "story": firing.story},
        closes="a run that begins and ends well",
    )  # fmt: skip
