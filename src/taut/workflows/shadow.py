"""A shadow's way from control's side: whether it is ready everywhere, what its pairs say, and what follows."""

from __future__ import annotations

from collections.abc import Sequence

from taut.core.errors import Corrupt
from taut.core.times import to_us
from taut.lifecycle.release import Shadow
from taut.lifecycle.release.shadow import PairCounts, PairReport, ShadowMove, advance_shadow
from taut.ports.records import Tx, transact
from taut.serving.snapshot import GatewayState
from taut.serving.trials import ShadowReading, decode_shadows
from taut.workflows.freezes import frozen_since
from taut.workflows.release import make_live
from taut.workflows.rooms import Rooms


def look_at_shadows(rooms: Rooms, gateways: Sequence[GatewayState]) -> tuple[ShadowMove, ...]:
    """Judge every shadow by what gateways told, and push where a canary follows; return what was done.

    One transaction a look, of the rows where something changed; what was read before somebody moved a shadow is dropped.
    """
    with rooms.records.read() as tx:
        under_way = rooms.releases.shadows.under_way(tx)
    if not under_way:
        return ()
    now, manifest = rooms.clock.now(), rooms.plans.current()
    moves = [
        (
            one,
            advance_shadow(
                one.plan, one.state, pair_reports(one.release, gateways), now_us=to_us(now),
                frozen=frozen_since(manifest, one.endpoint, one.started_us, now),
            ),
        )
        for one in under_way
    ]  # fmt: skip
    changed = [(one, move) for one, move in moves if (move.state, move.findings) != (one.state, one.findings)]
    if not changed:
        return ()
    done = transact(rooms.records, lambda tx: [move for one, move in changed if _keep(rooms, tx, one, move)])
    if any(move.kind == "canary" for move in done):
        rooms.publish()
    return tuple(done)


def pair_reports(release: str, gateways: Sequence[GatewayState]) -> list[PairReport]:
    """Return what each connected gateway tells of a shadow; one that tells nothing has not heard of it yet."""
    found = []
    for state in gateways:
        process = f"{state.gateway}#{state.pid}"
        if state.beat is None:
            found.append(PairReport(process=process, why="it gave no sign of life yet"))
            continue
        try:
            readings = decode_shadows(state.beat.shadows)
        except Corrupt as error:
            found.append(PairReport(process=process, why=error.message))
            continue
        told = next((one for one in readings if one.release == release), None)
        found.append(_report(process, told))
    return found


def promote_shadow(rooms: Rooms, release: str, *, actor: str, reason: str) -> None:
    """Let a shadow answer everybody at once; what it replaces stays in memory for as long as was declared.

    Raises Conflict where none is under way, or where it is not ready in every gateway.
    """

    def do(tx: Tx) -> None:
        rooms.releases.shadows.switch(tx, release, actor=actor, reason=reason)
        make_live(rooms, tx, release, actor)

    transact(rooms.records, do)
    rooms.publish()


def _report(process: str, told: ShadowReading | None) -> PairReport:
    if told is None:
        return PairReport(process=process, why="it does not serve it yet")
    counts = PairCounts(
        told.answered, told.dropped, told.differ, told.failed, told.moved, told.slower, told.times
    )
    why = "" if told.ready else told.fault or "it is being loaded"
    return PairReport(process=process, why=why, callers=told.callers, counts=counts)


def _keep(rooms: Rooms, tx: Tx, shadow: Shadow, move: ShadowMove) -> bool:
    """Write what was found and what follows from it, in one transaction."""
    releases = rooms.releases
    if not releases.shadows.keep(tx, shadow, move):
        return False
    if move.kind == "canary":
        assert shadow.plan.canary is not None, "only where one was declared"
        releases.canaries.begin(tx, shadow.release, shadow.plan.canary, actor="control")
        releases.raise_epoch(tx)
    return True
