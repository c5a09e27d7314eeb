"""An experiment's way from control's side: versions are compared by what became true of their answers, and traffic moved by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.times import to_us
from taut.lifecycle.release import Experiment, Payoff
from taut.lifecycle.release.experiment import Step, advance, is_due, payoff_of
from taut.ports.records import Tx, transact
from taut.project.manifest import Manifest
from taut.serving.predictions import PredictionRecord
from taut.serving.snapshot import GatewayState
from taut.serving.trials import unit_of
from taut.workflows.canary import reports_by_version
from taut.workflows.freezes import frozen_since
from taut.workflows.release import make_live
from taut.workflows.rooms import Rooms

_UNIT_BYTES: Final = 16
_MOVES: Final = ("weigh", "stop", "promote", "end")

Told = tuple[PredictionRecord, int, Scalar]
"""An answer that was given in a trial, which row of it, and what became true."""


def look(rooms: Rooms, gateways: Sequence[GatewayState]) -> tuple[Step, ...]:
    """Judge every experiment by what gateways counted and what was told of answers, and push where traffic moves; return what was done.

    One transaction a look, of the rows where something changed; what was read before somebody moved an experiment is dropped.
    """
    now_us = to_us(rooms.clock.now())
    with rooms.records.read() as tx:
        room = rooms.releases.experiments
        under_way = [
            (one, room.payoffs(tx, one) if is_due(one.plan, one.state, now_us) else None)
            for one in room.under_way(tx)
        ]
    manifest, now = rooms.plans.current() if under_way else None, rooms.clock.now()
    steps = [
        (
            one,
            advance(
                one.plan,
                one.state,
                reports_by_version(one.release, gateways),
                sums,
                now_us=now_us,
                frozen=_frozen(manifest, one, now),
            ),
        )
        for one, sums in under_way
    ]
    changed = [(one, step) for one, step in steps if (step.state, step.findings) != (one.state, one.findings)]
    if not changed:
        return ()
    done = transact(rooms.records, lambda tx: [step for one, step in changed if _keep(rooms, tx, one, step)])
    if any(step.kind in _MOVES for step in done):
        rooms.publish()
    return tuple(done)


def _frozen(manifest: Manifest | None, one: Experiment, now: datetime) -> str:
    """Return why no arm may win callers now."""
    found = frozen_since(manifest, one.endpoint, one.started_us, now)
    return f"{found}: each version keeps its part, and is judged" if found else ""


def promote(rooms: Rooms, release: str, version: str, *, actor: str, reason: str) -> None:
    """End an experiment by a person's word: one of its versions takes over, or the control stays.

    Raises Conflict where none is under way, InvalidInput for a version that is none of its arms.
    """
    if not version:
        raise InvalidInput(
            f"release {release} compares several versions: name the one, `taut release promote {release} VERSION`"
        )
    transact(rooms.records, lambda tx: _decide(rooms, tx, release, version, actor=actor, reason=reason))
    rooms.publish()


def payoffs_of(rooms: Rooms, tx: Tx, told: Iterable[Told]) -> dict[str, list[Payoff]]:
    """Return by release what answers turned out to be worth to the experiments in which they were given."""
    known: dict[str, Experiment | None] = {}
    found: dict[str, list[Payoff]] = {}
    for record, row, label in told:
        release = record.head.trial
        if release not in known:
            known[release] = rooms.releases.experiments.find(tx, release)
        one = known[release]
        if one is None or record.head.version not in one.plan.arms:
            continue
        value = payoff_of(one.plan, label, _said(record, row))
        if value is not None:
            found.setdefault(release, []).append(_payoff(record, row, value))
    return found


def _payoff(record: PredictionRecord, row: int, value: float) -> Payoff:
    unit = unit_of(record.principal, record.subject).encode()
    key = record.head.trial.encode()[:64]
    return Payoff(
        unit=hashlib.blake2b(unit, key=key, digest_size=_UNIT_BYTES).hexdigest(), version=record.head.version,
        share=record.head.share, at_us=record.time_us, answer=f"{record.request_id}/{row}", value=value,
    )  # fmt: skip


def _said(record: PredictionRecord, row: int) -> Any:
    answer = record.answer
    return answer.labels[row] if answer.probabilities else answer.values[row]


def _keep(rooms: Rooms, tx: Tx, one: Experiment, step: Step) -> bool:
    """Write what was found and what follows from it, in one transaction."""
    if not rooms.releases.experiments.keep(tx, one, step):
        return False
    match step.kind:
        case "weigh" | "stop":
            rooms.releases.raise_epoch(tx)
        case "promote":
            _decide(rooms, tx, one.release, step.version, actor="control", reason=step.reason)
        case "end":
            rooms.releases.abort(tx, one.release, actor="control", reason=step.reason)
    return True


def _decide(rooms: Rooms, tx: Tx, release: str, version: str, *, actor: str, reason: str) -> None:
    chosen = rooms.releases.experiments.choose(tx, release, version, actor=actor, reason=reason)
    if chosen is None:
        why = f"the control was chosen: {reason or 'a person says so'}"
        rooms.releases.abort(tx, release, actor=actor, reason=why)
    else:
        make_live(rooms, tx, release, actor)
