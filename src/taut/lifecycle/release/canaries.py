"""Canaries as rows: begun with their plan in the ledger, moved by one transaction a step, ended with their release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Row, delete, insert, select, update

from taut.core.errors import Conflict
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.lifecycle.release import tried
from taut.lifecycle.release.canary import (
    OUTCOMES,
    CanaryPlan,
    CanaryState,
    Finding,
    Move,
    Report,
    begun,
    checked_plan,
    payoff_bin,
    resumed,
)
from taut.lifecycle.release.canary.amounts import PAYOFF_BINS, Bins
from taut.lifecycle.release.tables import canaries, learned, lessons
from taut.ports.records import Tx
from taut.ports.world import Clock

_PLAN: Final = msgspec.json.Decoder(CanaryPlan)
_STATE: Final = msgspec.json.Decoder(CanaryState)
_FINDINGS: Final = msgspec.json.Decoder(tuple[Finding, ...])
_BINS: Final = msgspec.json.Decoder(tuple[list[int], list[int]])


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A canary as it stands. started_us: its release. turn: of its row."""

    release: str
    endpoint: str
    version: VersionRef
    plan: CanaryPlan
    state: CanaryState
    findings: tuple[Finding, ...]
    turn: int
    started_us: int = 0

    @property
    def weight(self) -> float:
        return self.state.weight


class ArmShare(NamedTuple):
    """A version that answers a part of the callers. slot: 1 to 7, its own."""

    version: VersionRef
    weight: float
    slot: int = 1


class Share(NamedTuple):
    """What gateways must know of a release under way: a value that differs as soon as they have something to learn."""

    release: str
    endpoint: str
    stage: int
    arms: tuple[ArmShare, ...]


class Lesson(NamedTuple):
    """What the outcome of one answer says. unit: the mark of whom it answered. amount: 1.0 for a wrong answer; what it brought."""

    release: str
    stage: int
    guardrail: str
    unit: int
    minute: int
    canary: bool
    amount: float


class Canaries:
    """The canaries of the release room.

    Guarantees: a plan is in the ledger before the first request; what was counted and the step that follows from it commit
    together, so that a crash at any moment leaves one or the other; a row that somebody else moved meanwhile is left as it is.
    """

    def __init__(self, *, clock: Clock, leaf: tried.Leaf) -> None:
        """leaf: leaves one of the release room in the ledger."""
        self._leaf: Final = leaf
        self._clock: Final = clock

    def begin(self, tx: Tx, release: str, plan: CanaryPlan, *, actor: str) -> CanaryState:
        """Begin with the first step of a release that was started. The caller raises the epoch.

        Raises InvalidInput for a plan that cannot be judged.
        """
        state = begun(checked_plan(plan), to_us(self._clock.now()))
        tried.begin(tx, canaries, release, plan=plan, state=state)
        self._leaf(tx, "release.canary.begun", release, actor, {"plan": tried.text(plan)})
        return state

    def under_way(self, tx: Tx) -> tuple[Canary, ...]:
        """Return those whose release is neither promoted nor ended, by endpoint."""
        return tuple(_canary(row) for row in tried.all_under_way(tx, canaries))

    def shares(self, tx: Tx) -> tuple[Share, ...]:
        return tuple(
            Share(one.release, one.endpoint, one.state.step, (ArmShare(one.version, one.state.weight),))
            for one in self.under_way(tx)
        )

    def find(self, tx: Tx, release: str) -> Canary | None:
        """Return a canary, of a release that ended too; None for a release that is none."""
        row = tried.found(tx, canaries, release)
        return None if row is None else _canary(row)

    def keep(self, tx: Tx, before: Canary, move: Move) -> bool:
        """Write what a look found; return whether it was written: not where somebody moved or ended the canary meanwhile.

        A step or a hold leaves a leaf in the ledger; the end of a canary leaves its release's.
        """
        written = tried.write(tx, canaries, before, state=move.state, findings=move.findings)
        if written and move.kind != "stay":
            body = {
                "move": move.kind,
                "reason": move.reason,
                "weight": f"{move.state.weight:g}",
                "evidence": tried.text(move.findings),
            }
            self._leaf(tx, "release.canary.judged", before.release, "control", body)
        return written

    def learn(self, tx: Tx, told: Sequence[Lesson]) -> int:
        """Count outcomes in the transaction that keeps them; return how many counted: each caller's once a minute, of payoffs once a step.

        Those of releases that are over, or are not judged by them, count nowhere.
        """
        plans = {one.release: one.plan for one in self.under_way(tx)} if told else {}
        fresh: dict[tuple[str, int, str], list[tuple[bool, int]]] = {}
        for one in told:
            plan = plans.get(one.release)
            if plan is not None and one.guardrail in plan.guardrails and _is_new(tx, one):
                by = (
                    int(one.amount > 0)
                    if one.guardrail == "quality"
                    else payoff_bin(one.amount, plan.payoff_most)
                )
                fresh.setdefault((one.release, one.stage, one.guardrail), []).append((one.canary, by))
        for (release, stage, name), counted in fresh.items():
            self._add(tx, release, stage, name, counted)
        return sum(map(len, fresh.values()))

    def _add(self, tx: Tx, release: str, stage: int, name: str, counted: Sequence[tuple[bool, int]]) -> None:
        same = (learned.c.release == release) & (learned.c.stage == stage) & (learned.c.name == name)
        before = tx.execute(select(learned.c.counts).where(same)).scalar_one_or_none()
        bins = [0] * (2 if name == "quality" else PAYOFF_BINS)
        arms = [bins, list(bins)] if before is None else _BINS.decode(before)
        for canary, at in counted:
            arms[not canary][at] += 1
        if before is None:
            tx.execute(
                insert(learned).values(release=release, stage=stage, name=name, counts=tried.text(arms))
            )
        else:
            tx.execute(update(learned).where(same).values(counts=tried.text(arms)))

    def reports(self, tx: Tx, release: str) -> list[Report]:
        """Return what outcomes taught of a canary, as a process reports it: of each step since it began."""
        told: dict[int, dict[str, Bins]] = {}
        for row in tx.execute(select(learned).where(learned.c.release == release)):
            canary, baseline = _BINS.decode(row.counts)
            told.setdefault(row.stage, {})[row.name] = tuple(canary), tuple(baseline)
        return [Report(process=OUTCOMES, stage=stage, told=of) for stage, of in sorted(told.items())]

    def forget(self, tx: Tx, release: str) -> None:
        """Forget whose outcomes were counted of a release that ended."""
        tx.execute(delete(lessons).where(lessons.c.release == release))

    def pause(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Let a canary keep its weight until it is resumed; it is judged all the same. Raises Conflict where none is under way."""
        one = self._open(tx, release)
        tried.write(
            tx,
            canaries,
            one,
            state=msgspec.structs.replace(one.state, paused=reason or "paused"),
            findings=one.findings,
        )
        self._leaf(tx, "release.canary.paused", release, actor, {"reason": reason})

    def resume(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Let a canary go on that was paused or is held; what holds it now holds it no more, and can still end it."""
        one = self._open(tx, release)
        state = resumed(one.plan, one.state)
        tried.write(tx, canaries, one, state=state, findings=one.findings)
        body = {
            "reason": reason,
            "was": one.state.held or one.state.paused,
            "waived": ", ".join(state.waived),
        }
        self._leaf(tx, "release.canary.resumed", release, actor, body)

    def _open(self, tx: Tx, release: str) -> Canary:
        row = tried.under_way(tx, canaries, release)
        if row is None:
            raise Conflict(
                f"release {release} is no canary that is under way: `taut release status` says what is"
            )
        return _canary(row)


def _is_new(tx: Tx, one: Lesson) -> bool:
    """Note whose outcome it is; tell whether none of his was counted yet."""
    same = {
        "release": one.release,
        "stage": one.stage,
        "name": one.guardrail,
        "unit": one.unit,
        "minute": one.minute,
    }
    if tx.execute(
        select(lessons.c.unit).where(*(lessons.c[name] == value for name, value in same.items()))
    ).first():
        return False
    tx.execute(insert(lessons).values(same))
    return True


def _canary(row: Row[Any]) -> Canary:
    return Canary(
        release=row.release, endpoint=row.endpoint, version=VersionRef.parse(row.version), turn=row.turn, started_us=row.started_us,
        plan=_PLAN.decode(row.plan), state=_STATE.decode(row.state), findings=_FINDINGS.decode(row.findings),
    )  # fmt: skip
