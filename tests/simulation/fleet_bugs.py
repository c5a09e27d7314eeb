"""One bug for each invariant of admission: a single guard that somebody forgot."""

from __future__ import annotations

from typing import Any, Self

import msgspec
from fleet_world import Rules

from taut.fleet.admission import (
    Admission,
    Answer,
    Attest,
    GatewayView,
    Member,
    ReplicaView,
    Risk,
    Served,
    Stage,
    Step,
    Ticket,
)
from taut.fleet.log.event import ScaleEvent

replace = msgspec.structs.replace


class AdmitsUnprobed(Admission, frozen=True):
    """A replica that was warmed is good enough."""

    def warmed(self, replica: str, incarnation: int, checks: Any) -> Step:
        step = super().warmed(replica, incarnation, checks)
        member = step.state.members[replica]
        return replace(step, state=step.state._with(replace(member, stage=Stage.PROBED)))


class LeasesFromReceipt(ReplicaView, frozen=True):
    """A lease is counted from when its ticket arrived."""

    def hear(self, answer: Answer, *, now_s: float) -> Self:
        return ReplicaView.hear(replace(self, asked=dict.fromkeys(self.asked, now_s)), answer, now_s=now_s)


class GrantsFairShares(Admission, frozen=True):
    """Everybody gets a fair share, whatever is out."""

    def _grant(self, member: Member) -> int:
        return self._fair(member.pool)


class TakesAnswersInAnyOrder(ReplicaView, frozen=True):
    """What arrives last is the newest."""

    def _is_news(self, answer: Answer) -> bool:
        return True

    def hear(self, answer: Answer, *, now_s: float) -> Self:
        asked = dict(self.asked)
        heard = ReplicaView.hear(self, answer, now_s=now_s)
        return replace(heard, asked=asked)


class ServesUnderTheNewest(ReplicaView, frozen=True):
    """The newest bundle is the best one, whatever the request was pinned to."""

    def may_serve(self, epoch: int, risk: Risk, *, now_s: float) -> Served:
        served = super().may_serve(epoch, risk, now_s=now_s)
        return replace(served, bundle=self.loaded[max(self.loaded)])


class RenewsTheRevoked(Admission, frozen=True):
    """A revocation is written down, and nobody looks."""

    def revoke(self, identity: str) -> Step:
        return Step(state=self)


class FinishesItsLeaseFirst(ReplicaView, frozen=True):
    """Who is told to drain stops when its lease is over anyway."""

    def hear(self, answer: Answer, *, now_s: float) -> Self:
        return self if answer.drain_s is not None else super().hear(answer, now_s=now_s)


class NeverAborts(ReplicaView, frozen=True):
    """Whoever drains may take his time."""

    def must_abort(self, *, now_s: float) -> bool:
        return False


class RemembersBeforeRestart(Admission, frozen=True):
    """Who was admitted before its restart needs no second look."""

    def _born(self, before: Member | None, *args: Any) -> Member:
        member = super()._born(before, *args)
        return member if before is None else replace(member, stage=before.stage, proved=before.proved)

    def attest(self, message: Attest, *, now_s: float) -> Step:
        member = self._of(message.replica, message.incarnation)
        if member.stage is Stage.ADMITTED and self._invited(member, message):
            return Step(state=self._with(replace(member, key=message.key, token="")))
        return super().attest(message, now_s=now_s)


class ForgetsTheKey(GatewayView, frozen=True):
    """A ticket is good for whoever names its replica."""

    def _is_holder(self, ticket: Ticket, incarnation: int, key: str) -> bool:
        return True


class TakesTokensTwice(Admission, frozen=True):
    """A join token that was good once is good again."""

    def attest(self, message: Attest, *, now_s: float) -> Step:
        member = self._of(message.replica, message.incarnation)
        if member.stage is Stage.QUARANTINED or member.key == message.key:
            return super().attest(message, now_s=now_s)
        member = replace(member, stage=Stage.PROVISIONED, token=self._digest(message))
        return Admission.attest(self._with(member), message, now_s=now_s)

    def _digest(self, message: Attest) -> str:
        from taut.core.canonical import digest_bytes

        return digest_bytes(message.token.encode())


class LetsComputeLead(Admission, frozen=True):
    """Detectors will come."""

    def _is_guarded(self, pool: str, n: int, now_s: float, *, without: str = "") -> bool:
        return True


class CommitsWithoutLooking(Admission, frozen=True):
    """An epoch is committed when its time has come."""

    def _short(self, epoch: int, now_s: float) -> list[str]:
        return []


class AlertsAgain(Admission, frozen=True):
    """Every event of the scale log is news."""

    def scaled(self, event: ScaleEvent) -> Step:
        step = super().scaled(event)
        if step.events:
            return step
        return Admission.scaled(replace(self, scale_seq=event.seq - 1), event)


class WaitsForEver(Admission, frozen=True):
    """A replica takes the time that it takes."""

    def _overdue(self, member: Member, now_s: float) -> str:
        return ""


class GraceForAll(ReplicaView, frozen=True):
    """What may go on without control may go on for high risk too."""

    def _is_degraded(self, risk: Risk, now_s: float) -> bool:
        return super()._is_degraded("low", now_s)


class ListsFullLives(Admission, frozen=True):
    """What is left of a ticket is what it had when it was given."""

    def roster(self, *, now_s: float) -> tuple[Ticket, ...]:
        terms = self.terms
        return tuple(
            replace(one, ttl_s=terms.ttl_s, grace=terms.grace) for one in super().roster(now_s=now_s)
        )


class ForgetsTheReplaced(Admission, frozen=True):
    """What an incarnation held is free once the next one is expected."""

    def provision(self, replica: str, pool: str, *, token: str, nonce: str, now_s: float) -> Step:
        step = super().provision(replica, pool, token=token, nonce=nonce, now_s=now_s)
        before = self.members.get(replica)
        if before is None:
            return step
        holds = tuple(one for one in step.state.holds if one.holder != before.svid)
        return replace(step, state=replace(step.state, holds=holds))


class StoresTooLittle(Admission, frozen=True):
    """Who is being started is not worth a write."""

    def durable(self) -> Any:
        return self.epochs.counted_anew(0.0), self.scale_seq, self.revoked


class KeepsTheOldEpoch(ReplicaView, frozen=True):
    """A request that says that it began under the epoch before is believed for ever."""

    def may_serve(self, epoch: int, risk: Risk, *, now_s: float) -> Served:
        return ReplicaView.may_serve(replace(self, before_until_s=1e18), epoch, risk, now_s=now_s)


BUGS: dict[str, tuple[str, Rules]] = {
    "AdmitsUnprobed": ("I1", Rules(admission=AdmitsUnprobed)),
    "KeepsTheOldEpoch": ("I2", Rules(replica=KeepsTheOldEpoch)),
    "GrantsFairShares": ("I3", Rules(admission=GrantsFairShares)),
    "ForgetsTheReplaced": ("I3", Rules(admission=ForgetsTheReplaced)),
    "TakesAnswersInAnyOrder": ("I4", Rules(replica=TakesAnswersInAnyOrder)),
    "ServesUnderTheNewest": ("I5", Rules(replica=ServesUnderTheNewest)),
    "RenewsTheRevoked": ("I6", Rules(admission=RenewsTheRevoked)),
    "FinishesItsLeaseFirst": ("I7", Rules(replica=FinishesItsLeaseFirst)),
    "NeverAborts": ("I7", Rules(replica=NeverAborts)),
    "RemembersBeforeRestart": ("I8", Rules(admission=RemembersBeforeRestart)),
    "ForgetsTheKey": ("I9", Rules(gateway=ForgetsTheKey)),
    "TakesTokensTwice": ("I9", Rules(admission=TakesTokensTwice)),
    "CommitsWithoutLooking": ("I10", Rules(admission=CommitsWithoutLooking)),
    "AlertsAgain": ("I11", Rules(admission=AlertsAgain)),
    "StoresTooLittle": ("I8", Rules(admission=StoresTooLittle)),
    "LetsComputeLead": ("capacity", Rules(admission=LetsComputeLead)),
    "WaitsForEver": ("L1", Rules(admission=WaitsForEver)),
    "LeasesFromReceipt": ("lease", Rules(replica=LeasesFromReceipt)),
    "ListsFullLives": ("lease", Rules(admission=ListsFullLives)),
    "GraceForAll": ("lease", Rules(replica=GraceForAll)),
}
"""Each bug with the invariant that it breaks."""
