"""Experiments as rows: begun with their plan in the ledger, moved by one transaction a step, learning from outcomes as they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import structs
from sqlalchemy import Row, delete, func, insert, select, update

from taut.core.errors import Conflict, InvalidInput
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.lifecycle.release import tried
from taut.lifecycle.release.canaries import ArmShare, Share
from taut.lifecycle.release.experiment import (
    ArmFindings,
    ExperimentPlan,
    ExperimentState,
    PayoffSum,
    Step,
    begun,
    checked_plan,
    resumed,
)
from taut.lifecycle.release.tables import experiments, payoffs, releases
from taut.ports.records import Tx
from taut.ports.world import Clock

_PLAN: Final = msgspec.json.Decoder(ExperimentPlan)
_STATE: Final = msgspec.json.Decoder(ExperimentState)
_FINDINGS: Final = msgspec.json.Decoder(tuple[ArmFindings, ...])
_AT_ONCE: Final = 500
_FORGOTTEN: Final = 10
"""After so many half-lives an outcome counts a thousandth, and is left out."""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment as it stands. started_us: its release. turn: of its row."""

    release: str
    endpoint: str
    plan: ExperimentPlan
    state: ExperimentState
    findings: tuple[ArmFindings, ...]
    turn: int
    started_us: int = 0

    @property
    def weight(self) -> float:
        """Return the part of the callers that is not the control's."""
        return 1.0 - self.state.weights[0]


class Payoff(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer turned out to be worth, 0 to 1. unit: whom it was given, as nobody can be known by. share: the weight under
    which he was drawn. answer: which one it was; told of again, the later word counts."""

    unit: str
    version: str
    share: float
    at_us: int
    answer: str
    value: float


class Experiments:
    """The experiments of the release room.

    Guarantees: a plan is in the ledger before the first request; what was counted and the step that follows from it commit
    together; a row that somebody else moved meanwhile is left as it is. Of a unit one outcome counts, however many are told, or
    one in each interval of `ExperimentPlan.again_s`: the first that was told, as it was corrected.
    """

    def __init__(self, *, clock: Clock, leaf: tried.Leaf) -> None:
        """leaf: leaves one of the release room in the ledger."""
        self._leaf: Final = leaf
        self._clock: Final = clock

    def begin(self, tx: Tx, release: str, plan: ExperimentPlan, *, actor: str) -> ExperimentState:
        """Begin with the first weights of a release that was started. The caller raises the epoch."""
        state = begun(checked_plan(plan), to_us(self._clock.now()))
        tried.begin(tx, experiments, release, plan=plan, state=state)
        self._leaf(tx, "release.experiment.begun", release, actor, {"plan": tried.text(plan)})
        return state

    def under_way(self, tx: Tx) -> tuple[Experiment, ...]:
        """Return those whose release is neither promoted nor ended, by endpoint."""
        return tuple(_experiment(row) for row in tried.all_under_way(tx, experiments))

    def shares(self, tx: Tx) -> tuple[Share, ...]:
        """Return what gateways must know: arms that were stopped answer nobody."""
        return tuple(
            Share(
                one.release,
                one.endpoint,
                one.state.stage,
                tuple(
                    ArmShare(VersionRef.parse(version), weight, slot)
                    for slot, (version, weight) in enumerate(
                        zip(one.plan.arms, one.state.weights, strict=True)
                    )
                    if slot and weight
                ),
            )
            for one in self.under_way(tx)
        )

    def find(self, tx: Tx, release: str) -> Experiment | None:
        """Return an experiment, of a release that ended too; None for a release that is none."""
        row = tried.found(tx, experiments, release)
        return None if row is None else _experiment(row)

    def keep(self, tx: Tx, before: Experiment, step: Step) -> bool:
        """Write what a look found; return whether it was written: not where somebody moved or ended the experiment meanwhile.

        Whatever moves weights, or holds them, leaves a leaf in the ledger.
        """
        written = tried.write(tx, experiments, before, state=step.state, findings=step.findings)
        if written and step.kind != "stay":
            weights = zip(before.plan.arms, step.state.weights, strict=True)
            body = {
                "move": step.kind,
                "reason": step.reason,
                "weights": ", ".join(f"{version} {weight:g}" for version, weight in weights),
                "standings": tried.text(step.state.standings),
                "evidence": tried.text(step.findings),
            }
            self._leaf(tx, "release.experiment.judged", before.release, "control", body)
        return written

    def choose(self, tx: Tx, release: str, version: str, *, actor: str, reason: str) -> VersionRef | None:
        """End an experiment with one of its versions: its release is that version's from now on, and is yet to be promoted.

        Returns None where the control is chosen, which is live. Raises Conflict where none is under way, InvalidInput for a version
        that is none of its arms or was stopped.
        """
        one = self._open(tx, release)
        chosen = str(VersionRef.parse(version, name=VersionRef.parse(one.plan.arms[0]).name))
        if chosen not in one.plan.arms:
            raise InvalidInput(
                f"{chosen} is no arm of release {release}: choose of {', '.join(one.plan.arms)}"
            )
        arm = one.plan.arms.index(chosen)
        if one.state.stopped[arm]:
            raise InvalidInput(f"{chosen} was stopped ({one.state.stopped[arm]}): choose another arm")
        body = {"version": chosen, "reason": reason, "standings": tried.text(one.state.standings)}
        self._leaf(tx, "release.experiment.decided", release, actor, body)
        if not arm:
            return None
        tx.execute(update(releases).where(releases.c.id == release).values(version=chosen))
        return VersionRef.parse(chosen)

    def pause(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Let weights stay as they are until it is resumed; arms that do harm are stopped all the same."""
        one = self._open(tx, release)
        tried.write(
            tx,
            experiments,
            one,
            state=structs.replace(one.state, paused=reason or "paused"),
            findings=one.findings,
        )
        self._leaf(tx, "release.experiment.paused", release, actor, {"reason": reason})

    def resume(self, tx: Tx, release: str, *, actor: str, reason: str) -> None:
        """Let an experiment go on that was paused or is held; the split that held it holds it no more."""
        one = self._open(tx, release)
        tried.write(tx, experiments, one, state=resumed(one.state), findings=one.findings)
        body = {"reason": reason, "was": one.state.held or one.state.paused}
        self._leaf(tx, "release.experiment.resumed", release, actor, body)

    def learn(self, tx: Tx, release: str, told: Sequence[Payoff]) -> None:
        """Take what answers turned out to be worth; the same again changes nothing, a correction counts in place of what it corrects.

        Nothing is learned of an experiment that is over.
        """
        one = self._started(tx, release)
        if one is None:
            return
        every_us = int(one.plan.again_s * 1e6)
        keyed = [((payoff.unit, payoff.at_us // every_us if every_us else 0), payoff) for payoff in told]
        known = _answers(tx, release, [payoff.unit for _, payoff in keyed])
        fresh: dict[tuple[str, int], Payoff] = {}
        for key, payoff in keyed:
            if key in known:
                if known[key] == payoff.answer:
                    at = (payoffs.c.release == release, payoffs.c.unit == key[0], payoffs.c.turn == key[1])
                    tx.execute(update(payoffs).where(*at).values(value=payoff.value))
            elif key not in fresh or fresh[key].answer == payoff.answer:
                fresh[key] = payoff
        rows = [
            {
                "release": release, "unit": unit, "turn": turn, "arm": one.plan.arms.index(payoff.version),
                "share": payoff.share, "at_us": payoff.at_us, "answer": payoff.answer, "value": payoff.value,
            }
            for (unit, turn), payoff in fresh.items()
        ]  # fmt: skip
        if rows:
            tx.execute(insert(payoffs), rows)

    def payoffs(self, tx: Tx, one: Experiment) -> tuple[PayoffSum, ...]:
        """Return what became true of the arms' answers so far, of those that are old enough and not forgotten."""
        plan, now_us = one.plan, to_us(self._clock.now())
        until_us = now_us - int(plan.mature_s * 1e6)
        since_us = now_us - int(plan.memory_s * _FORGOTTEN * 1e6) if plan.memory_s else 0
        every_us = int(max(plan.memory_s / 10, plan.every_s) * 1e6) if plan.kind == "bandit" else 2**62
        at = payoffs.c.at_us - payoffs.c.at_us % every_us
        query = (
            select(payoffs.c.arm, payoffs.c.share, at, func.count(), func.sum(payoffs.c.value))
            .where(payoffs.c.release == one.release, payoffs.c.at_us <= until_us, payoffs.c.at_us >= since_us)
            .group_by(payoffs.c.arm, payoffs.c.share, at)
            .order_by(payoffs.c.arm, payoffs.c.share, at)
        )
        return tuple(PayoffSum(*row) for row in tx.execute(query))

    def forget(self, tx: Tx, release: str) -> None:
        """Forget whom answers of an experiment that ended were given; what they came to is in the ledger."""
        tx.execute(delete(payoffs).where(payoffs.c.release == release))

    def _open(self, tx: Tx, release: str) -> Experiment:
        one = self._started(tx, release)
        if one is None:
            raise Conflict(
                f"release {release} is no experiment that is under way: `taut release status` says what is"
            )
        return one

    def _started(self, tx: Tx, release: str) -> Experiment | None:
        row = tried.under_way(tx, experiments, release)
        return None if row is None else _experiment(row)


def _answers(tx: Tx, release: str, units: Sequence[str]) -> dict[tuple[str, int], str]:
    """Return which answers to units count already, by unit and turn."""
    found: dict[tuple[str, int], str] = {}
    for at in range(0, len(units), _AT_ONCE):
        query = select(payoffs.c.unit, payoffs.c.turn, payoffs.c.answer).where(
            payoffs.c.release == release, payoffs.c.unit.in_(units[at : at + _AT_ONCE])
        )
        found |= {(row.unit, row.turn): row.answer for row in tx.execute(query)}
    return found


def _experiment(row: Row[Any]) -> Experiment:
    return Experiment(
        release=row.release, endpoint=row.endpoint, turn=row.turn, started_us=row.started_us, plan=_PLAN.decode(row.plan),
        state=_STATE.decode(row.state), findings=_FINDINGS.decode(row.findings),
    )  # fmt: skip
