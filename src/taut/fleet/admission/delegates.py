"""Workers in admission's books: a gateway vouches for those that it forked, admission judges what it says and keeps record.

A worker has no way to admission but its gateway, and nobody but its gateway a way to it: see decision 0016.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from taut.core.evidence import Evidence, Scalar
from taut.fleet.admission.members import ATTEST_GATE, PROBE_GATE, WARM_GATE
from taut.fleet.admission.messages import Event, Vouched, Worker, worker_svid
from taut.fleet.admission.terms import Stage

WORKERS_MAX: Final = 1024
POOL: Final = "worker"
_ENDED: Final = (Stage.GONE, Stage.QUARANTINED)
Workers = dict[str, Worker]
"""SVID -> a worker of one gateway that has not ended."""


def faults_of(worker: Worker) -> tuple[str, ...]:
    """Return why a worker is not admitted; nothing where what it showed passes every gate."""
    by_name = {check.name: check for check in worker.checks}
    found: list[str] = []
    for gate in (ATTEST_GATE, WARM_GATE, PROBE_GATE):
        checks = tuple(by_name[name] for name in sorted(gate.required) if name in by_name)
        verdict = gate.judge(Evidence(subject=worker.name, checks=checks))
        found += () if verdict.admitted else verdict.reasons
    return tuple(found)


def heeded(known: Workers, message: Vouched, *, revoked: frozenset[str]) -> tuple[Workers, tuple[Event, ...]]:
    """Take what a gateway says of its workers; return who lives now, and what is on record of it."""
    workers, events = dict(known), []
    for one in message.workers:
        svid = worker_svid(message.replica, message.incarnation, one.name, one.incarnation)
        before = workers.get(svid)
        if one.stage in _ENDED:
            workers.pop(svid, None)
            events.append(event_of(svid, one, message.replica))
            continue
        if before is None:
            faults = ("revoked",) if svid in revoked else faults_of(one)
            if faults or len(workers) >= WORKERS_MAX:
                why = "; ".join(faults) or f"a gateway vouches for {WORKERS_MAX} workers at most"
                events.append(event_of(svid, _ended(one, Stage.QUARANTINED, why), message.replica))
                continue
        if before is None or before.stage != one.stage:
            workers[svid] = one
            events.append(event_of(svid, one, message.replica))
    return workers, tuple(events)


def ended_with(known: Workers, gateway: str, why: str) -> tuple[Event, ...]:
    """Return what is on record where a gateway ends: its workers cannot outlive it."""
    return tuple(event_of(svid, _ended(one, Stage.GONE, why), gateway) for svid, one in sorted(known.items()))


def without(known: Workers, svid: str, gateway: str) -> tuple[Workers, tuple[Event, ...]]:
    """Trust a worker no more."""
    one = known[svid]
    left = {name: worker for name, worker in known.items() if name != svid}
    return left, (event_of(svid, _ended(one, Stage.QUARANTINED, "revoked"), gateway),)


def event_of(svid: str, one: Worker, gateway: str) -> Event:
    body: dict[str, Scalar] = {
        "pool": POOL,
        "gateway": gateway,
        "incarnation": one.incarnation,
        "artifact": one.artifact,
    }
    if one.reason:
        body["reason"] = one.reason[:500]
    return Event(kind=f"fleet.{one.stage}", subject=svid, body=body)


def admitted(known: Iterable[tuple[str, Worker]]) -> tuple[str, ...]:
    return tuple(sorted(svid for svid, one in known if one.stage is Stage.ADMITTED))


def _ended(one: Worker, stage: Stage, why: str) -> Worker:
    return Worker(name=one.name, incarnation=one.incarnation, artifact=one.artifact, stage=stage, reason=why)
