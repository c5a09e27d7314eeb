"""A canary's way from control's side: what gateways counted is taken, judged and kept, and traffic moved by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from taut.core.errors import Conflict, Corrupt
from taut.lifecycle.release import Canary
from taut.lifecycle.release.canary import Move, Report, advance, by_outcomes
from taut.ports.records import Tx, transact
from taut.project.manifest import Manifest
from taut.serving.snapshot import GatewayState
from taut.serving.trials import decode_trials
from taut.trust.findings import Findings, Sighting
from taut.workflows.freezes import frozen_since
from taut.workflows.release import make_live
from taut.workflows.rooms import Rooms

PAGED: Final = "release.limit"
"""Kind of the alert that a canary is beyond a limit at which people are told."""
ROLLED_BACK: Final = "release.rolled_back"
"""Kind of the alert that a canary was rolled back by its guardrails."""


def look(rooms: Rooms, gateways: Sequence[GatewayState]) -> tuple[Move, ...]:
    """Judge every canary by what gateways counted, tell people where they are to be told, and push where traffic moves; return what was done.

    One transaction a look, of the rows where something changed; what was read before somebody moved a canary is dropped.
    """
    with rooms.records.read() as tx:
        under_way = rooms.releases.canaries.under_way(tx)
        outcomes = {
            one.release: rooms.releases.canaries.reports(tx, one.release)
            for one in under_way
            if by_outcomes(one.plan)
        }
    findings = rooms.watches.findings  # furnished ahead of the transaction that may tell of one
    now_us = int(rooms.clock.now().timestamp() * 1e6)
    manifest = rooms.plans.current() if under_way else None
    moves = [
        (
            one,
            advance(
                one.plan,
                one.state,
                reports(one.release, gateways) + outcomes.get(one.release, []),
                now_us=now_us,
                frozen=_frozen(manifest, one, rooms.clock.now()),
            ),
        )
        for one in under_way
    ]
    changed = [(one, move) for one, move in moves if (move.state, move.findings) != (one.state, one.findings)]
    if not changed:
        return ()
    done = transact(
        rooms.records, lambda tx: [move for one, move in changed if _keep(rooms, findings, tx, one, move)]
    )
    if any(move.kind in ("grow", "promote", "roll_back") for move in done):
        rooms.publish()
    return tuple(done)


def _frozen(manifest: Manifest | None, canary: Canary, now: datetime) -> str:
    """Return why a canary may not grow now."""
    found = frozen_since(manifest, canary.endpoint, canary.started_us, now)
    return f"{found}: it keeps its weight, and is judged" if found else ""


def _beyond_limits(canary: Canary, move: Move) -> Iterator[Sighting]:
    """Yield what people are to be told of that they were not told before."""
    before = {one.guardrail for one in canary.findings if one.pages}
    for one in move.findings:
        if one.pages and one.guardrail not in before:
            yield Sighting(
                kind=PAGED, group=str(canary.version), resource=f"endpoint:{canary.endpoint}", score=round(min(one.evidence, 1e9), 2),
                severity="critical", summary=f"the canary {canary.version} of {canary.endpoint}: {one.says}",
                evidence={"limit": one.guardrail, "release": canary.release, "requests": one.canary},
                closes="its end, or the limit kept by another version",
            )  # fmt: skip


def reports(release: str, gateways: Sequence[GatewayState]) -> list[Report]:
    """Return what gateways told of a release; of one that tells what cannot be read, nothing."""
    return [one for of in reports_by_version(release, gateways).values() for one in of]


def reports_by_version(release: str, gateways: Sequence[GatewayState]) -> dict[str, list[Report]]:
    """Return the same by the version that is tried."""
    found: dict[str, list[Report]] = {}
    for state in gateways:
        if state.beat is None:
            continue
        try:
            readings = decode_trials(state.beat.trials)
        except Corrupt:
            continue  # another layout than control knows: it costs the gateway's counts, and not the release
        for one in readings:
            if one.release == release:
                report = Report(
                    process=f"{state.gateway}#{state.pid}", stage=one.stage, seen=one.seen, failed=one.failed,
                    fatal=one.fatal, answers=one.answers, times=one.times, scored=one.scored, broken=one.broken, worked=one.worked,
                )  # fmt: skip
                found.setdefault(one.version, []).append(report)
    return found


def promote(rooms: Rooms, release: str, *, actor: str, reason: str) -> None:
    """Let a canary take over at once, whatever its step. Raises Conflict where none is under way."""

    def do(tx: Tx) -> None:
        found = rooms.releases.canaries.find(tx, release)
        if found is None:
            raise Conflict(f"release {release} is no canary: `taut release status` says what is under way")
        move = Move(
            kind="promote", state=found.state, findings=found.findings, reason=reason or "a person says so"
        )
        rooms.releases.canaries.keep(tx, found, move)
        make_live(rooms, tx, release, actor)

    transact(rooms.records, do)
    rooms.publish()


def rolled_back(canary: Canary, move: Move) -> Sighting:
    """Return what people are told of a canary that its guardrails ended."""
    return Sighting(
        kind=ROLLED_BACK, group=str(canary.version), resource=f"endpoint:{canary.endpoint}", score=canary.state.weight,
        severity="warning", closes="by itself, a day later", evidence={"release": canary.release, "weight": canary.state.weight},
        summary=f"{canary.version} was rolled back from {canary.state.weight:.1%} of the callers of {canary.endpoint}: {move.reason}",
    )  # fmt: skip


def _keep(rooms: Rooms, findings: Findings, tx: Tx, canary: Canary, move: Move) -> bool:
    """Write what was found and what follows from it, in one transaction."""
    if not rooms.releases.canaries.keep(tx, canary, move):
        return False
    findings.report_in(tx, list(_beyond_limits(canary, move)))
    match move.kind:
        case "grow":
            rooms.releases.raise_epoch(tx)
        case "promote":
            make_live(rooms, tx, canary.release, "control")
        case "roll_back":
            rooms.releases.abort(tx, canary.release, actor="control", reason=f"rolled back: {move.reason}")
            findings.report_in(tx, [rolled_back(canary, move)])
    return True
