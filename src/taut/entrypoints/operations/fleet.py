"""Operations on the fleet: which replicas there are and what they may, how many there shall be, and whether all kept to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from taut.bootstrap.wanted import GATEWAYS_MAX
from taut.core.errors import Conflict, InvalidInput, Unavailable
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)

if TYPE_CHECKING:
    from taut.fleet.admission.judge import Answered

_POOL: Final = "gateway"
_LEAVES_MAX: Final = 10_000
_OK: Final = 200
_KINDS: Final = ("fleet.admitted", "fleet.committed", "fleet.quarantined", "fleet.draining", "fleet.gone")


class FleetScale(Request, frozen=True):
    """pool: `gateway`. n: how many there shall be on the first machine, whatever the load; with auto instead, the load decides
    again, where the project declares an autoscaler."""

    pool: str
    n: int | None = None
    auto: bool = False
    reason: str = "asked for"


class FleetRevoke(Request, frozen=True):
    """identity: name of a replica, thumbprint of its key, or its SPIFFE id."""

    identity: str


class FleetEvents(Request, frozen=True):
    """after: the place on the scale log behind which to begin."""

    after: int = 0


def _status(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    state, now_s = _admitting(platform).reception.store.state, platform.clock.monotonic_s()
    replicas = [
        {
            "replica": one.replica, "pool": one.pool, "incarnation": one.incarnation, "stage": str(one.stage),
            "epochs": list(one.proved), "scale_id": one.scale_id, "reason": one.reason,
            "silent_s": round(now_s - one.heard_s, 1),
            "workers": [
                {
                    "worker": worker.name, "incarnation": worker.incarnation, "stage": str(worker.stage), "svid": svid,
                    "artifact": worker.artifact, "reason": worker.reason,
                }
                for svid, worker in sorted(state.workers.get(one.replica, {}).items())
            ],
        }
        for one in sorted(state.members.values(), key=lambda one: one.replica)
    ]  # fmt: skip
    prepared = state.epochs.prepared
    return {
        "replicas": replicas,
        "pools": {name: target.n for name, target in state.targets.items()},
        "epoch": state.epochs.floor,
        "prepared": None if prepared is None else prepared.epoch,
        "revoked": sorted(state.revoked),
        "scaling": [_outlook(platform)],
    }


def _outlook(platform: Platform) -> Json:
    """Return how many there shall be, and why."""
    outlook = _scaling(platform).outlook()
    return {**to_json(outlook), "why": outlook.why}


def _scale(platform: Platform, caller: Caller, request: FleetScale, _progress: Progress) -> Json:
    """Pin the number, or hand it back: said on the log first; then the supervisor acts on it."""
    if request.pool != _POOL:
        raise InvalidInput(f"pool {request.pool[:80]!r} is not one that can be scaled: name {_POOL}")
    admitting, scaling = _admitting(platform), _scaling(platform)
    before, actor = platform.gateways, caller.principal.id
    if request.auto == (request.n is not None):
        raise InvalidInput("how many there shall be is not clear: give a number, or --auto in its place")
    if request.n is None:
        if not scaling.outlook().automatic:
            raise Conflict(
                "the project declares no autoscaler of gateways: add `taut.Autoscale` and apply it"
            )
        scaling.hand_back(actor=actor)
    elif not 1 <= request.n <= GATEWAYS_MAX:
        raise InvalidInput(f"n is {request.n}: choose 1 to {GATEWAYS_MAX}")
    else:
        scaling.set(request.n, reason=request.reason, actor=actor)
    return {
        "pool": _POOL, "before": before, "n": platform.gateways, "auto": request.auto,
        "scale_id": admitting.reception.store.state.targets[_POOL].scale_id,
    }  # fmt: skip


def _events(platform: Platform, _caller: Caller, request: FleetEvents, _progress: Progress) -> Json:
    from taut.fleet.log import ScaleLog

    log = ScaleLog(
        records=platform.records, ledger=platform.ledger, keys=platform.keys, clock=platform.clock, ids=platform.ids
    )  # fmt: skip
    return {"events": to_json(log.read(after=request.after))}


def _revoke(platform: Platform, _caller: Caller, request: FleetRevoke, _progress: Progress) -> Json:
    admitting = _admitting(platform)
    state = admitting.reception.store.state
    known = {name for one in state.members.values() for name in (one.replica, one.key, one.svid)}
    known |= {svid for workers in state.workers.values() for svid in workers}
    if request.identity not in known or not request.identity:
        raise Conflict(f"no replica is {request.identity[:80]!r}: see `taut fleet status`")
    admitting.revoke(request.identity)
    return {"revoked": sorted(admitting.reception.store.state.revoked)}


def _verify(platform: Platform, _caller: Caller, _request: Nothing, progress: Progress) -> Json:
    from taut.fleet.admission import Terms
    from taut.fleet.admission.judge import Fact, Judge

    facts = [
        Fact(kind=leaf.kind, subject=leaf.subject, at_us=leaf.at_us)
        for kind in _KINDS
        for leaf in platform.ledger.show(kind=kind, limit=_LEAVES_MAX)
    ]
    judge = Judge(_POOL, facts, ttl_s=Terms(pools=()).ttl_s)
    progress("reading the prediction log", 0.0)
    judged = judge.judge(_answers(platform))
    return {"verdict": "reject" if judged.unguarded else "admit", **to_json(judged)}


def _answers(platform: Platform) -> Iterator[Answered]:
    """Yield what gateways recorded as answered, by the leave that each segment names."""
    from taut.fleet.admission.judge import Answered
    from taut.serving.predictions import decode_record

    for segment, mark, payloads in platform.predictions.marked():
        for payload in payloads:
            record = decode_record(payload)
            if record.status == _OK:
                yield Answered(
                    replica=segment.writer, incarnation=mark.incarnation, degraded=mark.degraded, epoch=record.head.epoch,
                    at_us=record.time_us, worker=record.worker,
                )  # fmt: skip


def _admitting(platform: Platform) -> Any:
    if platform.admitting is None:
        raise Unavailable("no fleet runs here: start the platform with `taut up`")
    return platform.admitting


def _scaling(platform: Platform) -> Any:
    if platform.scaling is None:
        raise Unavailable("no fleet runs here: start the platform with `taut up`")
    return platform.scaling


def _any_fleet(_request: Any) -> str:
    return "fleet:any"


OPERATIONS: Final = (
    Operation(name="fleet.status", action="fleet.read", request=Nothing, handle=_status, resource=_any_fleet, reads=True, summary="Show the replicas, and what they may"),
    Operation(name="fleet.scale", action="fleet.scale", request=FleetScale, handle=_scale, resource=_any_fleet, summary="Have another number of replicas"),
    Operation(name="fleet.events", action="fleet.read", request=FleetEvents, handle=_events, resource=_any_fleet, reads=True, summary="Show the scale log"),
    Operation(name="fleet.revoke", action="fleet.revoke", request=FleetRevoke, handle=_revoke, resource=_any_fleet, summary="Revoke a replica for ever"),
    Operation(name="fleet.verify", action="ledger.verify", request=Nothing, handle=_verify, resource=_any_fleet, reads=True, summary="Judge what was served by replicas' own records"),
)  # fmt: skip
