"""Shadows as rows: begun with their plan in the ledger, judged, and what they replaced kept in memory for the way back."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from msgspec import structs
from sqlalchemy import Row, select

from taut.core.errors import Conflict
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.lifecycle.release import tried
from taut.lifecycle.release.canary import Finding
from taut.lifecycle.release.shadow import (
    ShadowMove,
    ShadowPlan,
    ShadowState,
    begun_shadow,
    checked_shadow,
    resumed_shadow,
)
from taut.lifecycle.release.tables import releases, shadows
from taut.ports.records import Tx
from taut.ports.world import Clock

_PLAN: Final = msgspec.json.Decoder(ShadowPlan)
_STATE: Final = msgspec.json.Decoder(ShadowState)
_FINDINGS: Final = msgspec.json.Decoder(tuple[Finding, ...])
_LIVE: Final = "live"


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A shadow as it stands. started_us: its release. turn: of its row."""

    release: str
    endpoint: str
    version: VersionRef
    plan: ShadowPlan
    state: ShadowState
    findings: tuple[Finding, ...]
    turn: int
    started_us: int = 0


class Beside(NamedTuple):
    """What gateways must know of a version that answers nobody: which, of which release, and which part of the requests it is asked too."""

    endpoint: str
    release: str
    version: VersionRef
    share: float


class Shadows:
    """The shadows of the release room.

    Guarantees: a plan is in the ledger before the version lies ready; what was counted and what follows from it commit together;
    a row that somebody else moved meanwhile is left as it is.
    """

    def __init__(self, *, clock: Clock, leaf: tried.Leaf) -> None:
        self._leaf: Final = leaf
        self._clock: Final = clock

    def begin(self, tx: Tx, release: str, plan: ShadowPlan, *, actor: str) -> None:
        """Begin with a release that was started. The caller raises the epoch. Raises InvalidInput for a plan that cannot be judged."""
        tried.begin(tx, shadows, release, plan=checked_shadow(plan), state=begun_shadow(self._now_us()))
        self._leaf(tx, "release.shadow.begun", release, actor, {"plan": tried.text(plan)})

    def under_way(self, tx: Tx) -> tuple[Shadow, ...]:
        """Return those whose release is neither promoted nor ended, and that no canary follows yet, by endpoint."""
        found = map(_shadow, tried.all_under_way(tx, shadows))
        return tuple(one for one in found if not one.state.over)

    def shares(self, tx: Tx) -> tuple[Beside, ...]:
        return tuple(
            Beside(one.endpoint, one.release, one.version, one.plan.share) for one in self.under_way(tx)
        )

    def kept(self, tx: Tx) -> tuple[Beside, ...]:
        """Return what live releases replaced, while it stays in memory: not where another release of the endpoint is under way."""
        live = tx.execute(
            tried.rows(shadows).where(releases.c.state == _LIVE, releases.c.replaces.is_not(None))
        ).all()
        rows = [row for row in live if _STATE.decode(row.state).kept_until_us > self._now_us()]
        if not rows:
            return ()
        busy = set(
            tx.execute(select(releases.c.endpoint).where(releases.c.state == tried.UNDER_WAY)).scalars()
        )
        found = []
        for row in rows:
            if row.endpoint not in busy:
                before = tx.execute(select(releases).where(releases.c.id == row.replaces)).one()
                found.append(Beside(row.endpoint, before.id, VersionRef.parse(before.version), 0.0))
        return tuple(found)

    def find(self, tx: Tx, release: str) -> Shadow | None:
        """Return a shadow, of a release that ended too; None for a release that has none."""
        row = tried.found(tx, shadows, release)
        return None if row is None else _shadow(row)

    def keep(self, tx: Tx, before: Shadow, move: ShadowMove) -> bool:
        """Write what a look found; return whether it was written: not where somebody moved or ended the shadow meanwhile."""
        written = tried.write(tx, shadows, before, state=move.state, findings=move.findings)
        if written and move.kind != "stay":
            body = {"move": move.kind, "reason": move.reason, "evidence": tried.text(move.findings)}
            self._leaf(tx, "release.shadow.judged", before.release, "control", body)
        return written

    def switch(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Note that a shadow takes over now, and until when what it replaces is kept. The caller makes it live.

        Raises Conflict where none is under way, or where it is not in memory everywhere: the switch would not be instant.
        """
        one = self._open(tx, release)
        if one.state.lacking or not one.state.ready:
            raise Conflict(
                f"release {release} is not ready: {one.state.waits or 'no gateway told of it yet'}"
            )
        until_us = self._now_us() + int(one.plan.keep_s * 1e6)
        state = structs.replace(one.state, kept_until_us=until_us if one.plan.keep_s else 0)
        tried.write(tx, shadows, one, state=state, findings=one.findings)
        body = {"reason": reason, "held": one.state.held, "evidence": tried.text(one.findings)}
        self._leaf(tx, "release.shadow.switched", release, actor, body)

    def resume(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Let a shadow pass that is held: what holds it now holds it no more. Raises Conflict where none is under way."""
        one = self._open(tx, release)
        state = resumed_shadow(one.plan, one.state)
        tried.write(tx, shadows, one, state=state, findings=one.findings)
        body = {"reason": reason, "was": one.state.held, "waived": ", ".join(state.waived)}
        self._leaf(tx, "release.shadow.resumed", release, actor, body)

    def _open(self, tx: Tx, release: str) -> Shadow:
        row = tried.under_way(tx, shadows, release)
        if row is None or (found := _shadow(row)).state.over:
            raise Conflict(
                f"release {release} is no shadow that is under way: `taut release status` says what is"
            )
        return found

    def _now_us(self) -> int:
        return to_us(self._clock.now())


def _shadow(row: Row[Any]) -> Shadow:
    return Shadow(
        release=row.release, endpoint=row.endpoint, version=VersionRef.parse(row.version), turn=row.turn, started_us=row.started_us,
        plan=_PLAN.decode(row.plan), state=_STATE.decode(row.state), findings=_FINDINGS.decode(row.findings),
    )  # fmt: skip
