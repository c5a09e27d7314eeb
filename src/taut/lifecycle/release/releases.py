"""Releases as rows: started, live, replaced, rolled back. Every transition is a leaf of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update

from taut.core.errors import Conflict, NotFound
from taut.core.evidence import Evidence, Gate, Verdict
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.times import from_us, to_us
from taut.lifecycle.release.canaries import Canaries, Canary, Share
from taut.lifecycle.release.experiments import Experiment, Experiments
from taut.lifecycle.release.shadows import Shadows
from taut.lifecycle.release.tables import epochs, releases, routes
from taut.ports.records import Records, Tx
from taut.ports.world import Clock, Ids
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage

ReleaseRow = Row[Any]

RELEASE_GATE = Gate(
    name="release",
    required=frozenset({"approved", "verified", "runtime", "compatible", "strategy", "unfrozen"}),
)


class ReleaseState(StrEnum):
    STARTED = "started"
    LIVE = "live"
    REPLACED = "replaced"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class ReleaseInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One release. `weight` is the share of traffic that it carries now, 0 to 1."""

    release: str
    endpoint: str
    version: str
    strategy: str
    state: ReleaseState
    weight: float
    replaces: str | None
    actor: str
    reason: str
    started_at: datetime
    ended_at: datetime | None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What answers for an endpoint now."""

    endpoint: str
    release: str
    version: VersionRef


class Releases:
    """The release room.

    Guarantees: at most one release of an endpoint is live; a transition, its ledger leaf, its lineage and the new
    epoch commit together; nothing is ever deleted, so each earlier state can be returned to.
    """

    def __init__(self, *, records: Records, ledger: Ledger, lineage: Lineage, clock: Clock, ids: Ids) -> None:
        self._records = records
        self._ledger = ledger
        self._lineage = lineage
        self.canaries = Canaries(clock=clock, leaf=self._leaf)
        self.shadows = Shadows(clock=clock, leaf=self._leaf)
        self.experiments = Experiments(clock=clock, leaf=self._leaf)
        self._clock = clock
        self._ids = ids

    def start(
        self,
        tx: Tx,
        *,
        endpoint: str,
        version: VersionRef,
        strategy: str,
        actor: str,
        reason: str,
        approvals: Sequence[str] = (),
    ) -> str:
        """Record the intent and return the release's id; no traffic moves.

        approvals: ids of the words by which the version may go; part of the release's lineage.
        Raises Conflict while another release of the endpoint is under way.
        """
        open_release = self._in_state(tx, endpoint, ReleaseState.STARTED)
        if open_release is not None:
            raise Conflict(
                f"endpoint {endpoint} is already being released ({open_release.id}, {open_release.version}): "
                "wait for it, or abort it first"
            )
        release = self._ids.new("rel")
        tx.execute(
            insert(releases).values(
                id=release, endpoint=endpoint, version=str(version), strategy=strategy, reason=reason,
                state=ReleaseState.STARTED, replaces=None, actor=actor, started_us=self._now_us(), ended_us=None,
            )
        )  # fmt: skip
        body = {"endpoint": endpoint, "version": str(version), "strategy": strategy, "reason": reason}
        self._leaf(tx, "release.started", release, actor, body)
        self._lineage.record(
            tx, activity="release",
            inputs=[Ref(Kind.MODEL, str(version)), *(Ref(Kind.APPROVAL, word) for word in approvals)], outputs=[Ref(Kind.RELEASE, release)],
            facts={"endpoint": endpoint, "strategy": strategy, "by": actor},
        )  # fmt: skip
        return release

    def judge(self, tx: Tx, evidence: Evidence, *, actor: str) -> Verdict:
        """Judge a release step by the release gate and put the verdict into the ledger."""
        verdict = RELEASE_GATE.judge(evidence)
        self._ledger.record_verdict(tx, verdict, actor=actor, evidence=evidence)
        return verdict

    def promote(self, tx: Tx, release: str, *, actor: str) -> int:
        """Make a started release live and return the new epoch. The one that it replaces stays in the history.

        Raises Conflict when the release is not the one under way. Promoting the live release again changes nothing.
        """
        row = self._row(tx, release)
        if row.state == ReleaseState.LIVE:
            return self.epoch(tx)
        if row.state != ReleaseState.STARTED:
            raise Conflict(f"release {release} is {row.state}, not started: start a new one")
        live = self._in_state(tx, row.endpoint, ReleaseState.LIVE)
        if live is not None:
            self._end(tx, live.id, ReleaseState.REPLACED)
        self._go_live(tx, row, replaces=None if live is None else live.id)
        self.canaries.forget(tx, release)
        self.experiments.forget(tx, release)
        self._leaf(tx, "release.promoted", release, actor, {"endpoint": row.endpoint, "version": row.version})
        return self.raise_epoch(tx)

    def abort(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """End a release that is under way; what was live stays live. An ended release stays as it is.

        Where versions were tried, gateways learn of it with the new epoch.
        """
        row = self._row(tx, release)
        if row.state != ReleaseState.STARTED:
            return
        self._end(tx, release, ReleaseState.ABORTED)
        self.canaries.forget(tx, release)
        self.experiments.forget(tx, release)
        if self._trial(tx, release) is not None or self.shadows.find(tx, release) is not None:
            self.raise_epoch(tx)
        body = {"endpoint": row.endpoint, "version": row.version, "reason": reason}
        self._leaf(tx, "release.aborted", release, actor, body)

    def roll_back(
        self, tx: Tx, *, endpoint: str, to: str | None, actor: str, reason: str
    ) -> tuple[ReleaseInfo, int]:
        """Return an endpoint to an earlier release, by default the one that the live release replaced.

        The way back is a release of its own, live at once; returns it and the new epoch.
        Raises NotFound where there is nothing to return to, Conflict when `to` never carried traffic.
        """
        live, earlier = self._way_back(tx, endpoint, to)
        under_way = self._in_state(tx, endpoint, ReleaseState.STARTED)
        if under_way is not None:
            self.abort(tx, under_way.id, actor=actor, reason=f"rolled back meanwhile: {reason}")
        self._end(tx, live.id, ReleaseState.ROLLED_BACK)
        version = VersionRef.parse(earlier.version)
        release = self.start(
            tx, endpoint=endpoint, version=version, strategy="rollback", actor=actor, reason=reason
        )
        # Its own `replaces` is what the target replaced, so that rolling back twice goes further back.
        self._go_live(tx, self._row(tx, release), replaces=earlier.replaces)
        body = {
            "endpoint": endpoint,
            "from": live.id,
            "to": earlier.id,
            "version": earlier.version,
            "reason": reason,
        }
        self._leaf(tx, "release.rolled_back", release, actor, body)
        return self._info(self._row(tx, release)), self.raise_epoch(tx)

    def withdraw(self, tx: Tx, release: str, *, actor: str, reason: str) -> bool:
        """Take a live release back: what it replaced answers again; where it was the first, nothing does.

        Return whether it was live: one that was replaced or rolled back meanwhile stays as it is.
        """
        row = self._row(tx, release)
        if row.state != ReleaseState.LIVE:
            return False
        if row.replaces is not None:
            self.roll_back(tx, endpoint=row.endpoint, to=row.replaces, actor=actor, reason=reason)
            return True
        self._end(tx, release, ReleaseState.ROLLED_BACK)
        tx.execute(delete(routes).where(routes.c.endpoint == row.endpoint))
        body = {"endpoint": row.endpoint, "version": row.version, "reason": reason}
        self._leaf(tx, "release.withdrawn", release, actor, body)
        self.raise_epoch(tx)
        return True

    def routes(self, tx: Tx) -> tuple[Route, ...]:
        """Return what answers for each endpoint now, by name."""
        rows = tx.execute(
            select(routes.c.endpoint, releases.c.id, releases.c.version)
            .join(releases, releases.c.id == routes.c.release)
            .order_by(routes.c.endpoint)
        )
        return tuple(
            Route(endpoint=row.endpoint, release=row.id, version=VersionRef.parse(row.version))
            for row in rows
        )

    def shares(self, tx: Tx) -> tuple[Share, ...]:
        """Return what is tried beside live versions now."""
        return (*self.canaries.shares(tx), *self.experiments.shares(tx))

    def _trial(self, tx: Tx, release: str) -> Canary | Experiment | None:
        return self.canaries.find(tx, release) or self.experiments.find(tx, release)

    def status(self, endpoint: str) -> ReleaseInfo:
        """Return the release under way, or else the live one. Raises NotFound when there was never one."""
        with self._records.read() as tx:
            row = self._in_state(tx, endpoint, ReleaseState.STARTED) or self._in_state(
                tx, endpoint, ReleaseState.LIVE
            )
            if row is None:
                raise NotFound(
                    f"endpoint {endpoint} was never released: `taut release start {endpoint} VERSION`"
                )
            return self._info(row, self._trial(tx, row.id))

    def show(self, release: str) -> ReleaseInfo:
        with self._records.read() as tx:
            return self._info(self._row(tx, release), self._trial(tx, release))

    def history(self, endpoint: str, *, limit: int = 100) -> tuple[ReleaseInfo, ...]:
        """Return an endpoint's releases, the newest first."""
        with self._records.read() as tx:
            rows = tx.execute(
                select(releases)
                .where(releases.c.endpoint == endpoint)
                .order_by(releases.c.started_us.desc(), releases.c.id.desc())
                .limit(limit)
            ).all()
        return tuple(self._info(row) for row in rows)

    def epoch(self, tx: Tx) -> int:
        return tx.execute(select(epochs.c.epoch).where(epochs.c.name == "serving")).scalar_one_or_none() or 0

    def raise_epoch(self, tx: Tx, *, above: int = 0) -> int:
        """Raise the epoch of what is served; call it in the transaction of whatever a gateway must learn.

        above: an epoch that gateways may have seen: these records may have been restored from before it.
        """
        before = self.epoch(tx)
        epoch = max(before, above) + 1
        if before == 0:
            tx.execute(insert(epochs).values(name="serving", epoch=epoch))
        else:
            tx.execute(update(epochs).where(epochs.c.name == "serving").values(epoch=epoch))
        return epoch

    def rollback_target(self, endpoint: str, *, to: str | None = None) -> ReleaseInfo:
        """Return the release that `roll_back` would return to; raises as it does."""
        with self._records.read() as tx:
            return self._info(self._way_back(tx, endpoint, to)[1])

    def _way_back(self, tx: Tx, endpoint: str, to: str | None) -> tuple[ReleaseRow, ReleaseRow]:
        live = self._in_state(tx, endpoint, ReleaseState.LIVE)
        if live is None:
            raise NotFound(f"endpoint {endpoint} has no live release: nothing to roll back")
        target = to or live.replaces
        if target is None:
            raise NotFound(f"release {live.id} of {endpoint} replaced nothing: name an earlier one with --to")
        earlier = self._row(tx, target)
        if earlier.endpoint != endpoint:
            raise Conflict(f"release {target} is of endpoint {earlier.endpoint}, not of {endpoint}")
        if earlier.state in (ReleaseState.STARTED, ReleaseState.ABORTED):
            raise Conflict(f"release {target} never carried traffic: choose one that did")
        if earlier.id == live.id:
            raise Conflict(f"release {target} is live already")
        return live, earlier

    def _go_live(self, tx: Tx, row: ReleaseRow, *, replaces: str | None) -> None:
        tx.execute(
            update(releases).where(releases.c.id == row.id).values(state=ReleaseState.LIVE, replaces=replaces)
        )
        moved = tx.execute(
            update(routes).where(routes.c.endpoint == row.endpoint).values(release=row.id)
        ).rowcount
        if moved == 0:
            tx.execute(insert(routes).values(endpoint=row.endpoint, release=row.id))

    def _end(self, tx: Tx, release: str, state: ReleaseState) -> None:
        tx.execute(
            update(releases).where(releases.c.id == release).values(state=state, ended_us=self._now_us())
        )

    def _row(self, tx: Tx, release: str) -> ReleaseRow:
        row = tx.execute(select(releases).where(releases.c.id == release)).one_or_none()
        if row is None:
            raise NotFound(f"no release {release}: `taut release history ENDPOINT` lists them")
        return row

    def _in_state(self, tx: Tx, endpoint: str, state: ReleaseState) -> ReleaseRow | None:
        return tx.execute(
            select(releases).where(releases.c.endpoint == endpoint, releases.c.state == state)
        ).one_or_none()

    def _leaf(self, tx: Tx, kind: str, release: str, actor: str, body: dict[str, str]) -> None:
        subject = str(Ref(Kind.RELEASE, release))
        self._ledger.append(tx, Entry(kind=kind, subject=subject, actor=actor, body=dict(body)))

    def _now_us(self) -> int:
        return to_us(self._clock.now())

    def _info(self, row: ReleaseRow, trial: Canary | Experiment | None = None) -> ReleaseInfo:
        weight = 1.0 if row.state == ReleaseState.LIVE else 0.0
        if row.state == ReleaseState.STARTED and trial is not None:
            weight = trial.weight
        return ReleaseInfo(
            release=row.id, endpoint=row.endpoint, version=row.version, strategy=row.strategy, actor=row.actor,
            state=ReleaseState(row.state), weight=weight, replaces=row.replaces, reason=row.reason,
            started_at=from_us(row.started_us), ended_at=None if row.ended_us is None else from_us(row.ended_us),
        )  # fmt: skip
