"""Admission itself: which replicas there are, what each has shown, and what it may do; no clock, no chance, no I/O.

Its state is a value. Each method takes what happened and when, and returns the next value with what must be put on record
and what may be said. Whoever runs it (`store.AdmissionStore`) keeps the value, whenever its `durable` part changed,
before anything is said; one admission runs at a time.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Denied
from taut.core.evidence import Check, Evidence, Gate, Outcome, Scalar
from taut.fleet.admission.books import Books, Target
from taut.fleet.admission.delegates import Workers, admitted, ended_with, heeded, without
from taut.fleet.admission.holds import counted_anew, in_force, released
from taut.fleet.admission.members import ATTEST_GATE, NEVER, PROBE_GATE, WARM_GATE, Member
from taut.fleet.admission.messages import (
    Answer,
    Attest,
    Beat,
    Bundle,
    Event,
    Invitation,
    Leaving,
    Shown,
    Vouched,
)
from taut.fleet.admission.terms import Stage
from taut.fleet.log.event import ScaleEvent

_replace: Final = msgspec.structs.replace


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one thing that happened: the next state, what must be on record with it, what may then be said."""

    state: Admission
    events: tuple[Event, ...] = ()
    answer: Answer | None = None
    invitation: Invitation | None = None


class Admission(Books, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control side. `now_s` is everywhere its own monotonic clock; one that begins anew is told by `restarted`.

    What a method refuses changes nothing: Denied for what a party may not say, Conflict for what came late or again,
    NotFound for who is not there. A lie, or evidence that a gate rejects, puts the replica into quarantine instead.
    """

    # -- what the fleet says

    def scaled(self, event: ScaleEvent) -> Step:
        """Take the next event of the scale log, before any of its capacity exists. One that was taken changes nothing.

        Raises Conflict on a gap: what lies between must be read first.
        """
        if event.seq <= self.scale_seq:
            return Step(state=self)
        if event.seq != self.scale_seq + 1:
            raise Conflict(
                f"scale event {event.scale_id} is number {event.seq} after {self.scale_seq}: read those between first"
            )
        self.terms.pool(event.pool)
        target = Target(scale_id=event.scale_id, n=event.n)
        state = _replace(self, scale_seq=event.seq, targets={**self.targets, event.pool: target})
        body: dict[str, Scalar] = {"pool": event.pool, "n": event.n, "reason": event.reason, "seq": event.seq}
        return Step(state=state, events=(Event(kind="fleet.scaled", subject=event.scale_id, body=body),))

    def provision(self, replica: str, pool: str, *, token: str, nonce: str, now_s: float) -> Step:
        """Expect a process that is about to be started, and return its invitation. What it was before is over.

        token, nonce: fresh and not to be guessed. The earlier incarnation's quota stays reserved until its leases have
        run out, unless `gone` said that it has ended.
        Raises Conflict where no scale event asks for it, Denied for a replica whose name was revoked.
        """
        target = self.targets.get(pool)
        if target is None:
            raise Conflict(f"no scale event asks for {pool}: say it on the scale log first")
        others = sum(
            one.lives and one.pool == pool for one in self.members.values() if one.replica != replica
        )
        if others >= target.n:
            raise Conflict(
                f"{pool} has {others} replicas, {target.scale_id} asks for {target.n}: scale first"
            )
        if replica in self.revoked:
            raise Denied(f"{replica} was revoked: start one of another name")
        before = self.members.get(replica)
        member = self._born(before, replica, pool, target.scale_id, token, nonce, now_s)
        invitation = Invitation(
            replica=replica, pool=pool, incarnation=member.incarnation, token=token, nonce=nonce
        )
        events = ended_with(self.workers.get(replica, {}), replica, "its gateway was started anew")
        state = _replace(self, workers=_less(self.workers, replica))._with(member)
        return Step(state=state, events=(*events, _event("fleet.provisioned", member)), invitation=invitation)

    def gone(self, replica: str, incarnation: int) -> Step:
        """A process has surely ended: its parent saw it. Its quota is free at once."""
        member = self._of(replica, incarnation)
        state = _replace(self, holds=released(self.holds, member.svid))
        if member.stage in (Stage.GONE, Stage.QUARANTINED):
            return Step(state=state)
        return state._moved(member, Stage.GONE)

    def drain(self, replica: str, *, now_s: float) -> Step:
        """A replica shall end: it gets no lease any more.

        Raises Conflict when it is not admitted, or guards others that are to end first.
        """
        member = self._there(replica)
        if member.stage is not Stage.ADMITTED:
            raise Conflict(f"{replica} is {member.stage}, not admitted: there is nothing to drain")
        for pool in self.terms.pools:
            left = self._is_guarded(pool.name, self._admitted(pool.name), now_s, without=replica)
            if pool.needs is not None and pool.needs.pool == member.pool and not left:
                raise Conflict(f"{replica} guards replicas of {pool.name}: drain those first")
        return self._moved(_replace(member, since_s=now_s), Stage.DRAINING)

    # -- what a replica shows

    def attest(self, message: Attest, *, now_s: float) -> Step:
        """Judge who joins. A used, wrong or late token, a wrong nonce or revoked key is refused and changes nothing;
        the right one with other artifacts than the pool's is quarantine.
        """
        member = self._of(message.replica, message.incarnation)
        if member.stage is not Stage.PROVISIONED or not self._invited(member, message):
            raise Denied(
                f"{message.replica} shows no open invitation: a join token is good for one process, once"
            )
        if message.key in self.revoked or not message.key:
            raise Denied(f"{message.replica} speaks with a revoked key: make another")
        wanted = self.terms.pool(member.pool).artifacts
        checks = (
            Check(name="token", outcome=Outcome.PASSED),
            Check(name="nonce", outcome=Outcome.PASSED),
            _equal("artifacts", message.artifacts, wanted),
        )
        member = _replace(member, token="", key=message.key, heard_s=now_s)
        return self._judged(member, ATTEST_GATE, checks, Stage.ATTESTED)

    def warmed(self, replica: str, incarnation: int, checks: tuple[Check, ...]) -> Step:
        """Judge what warming gave: golden rows within tolerance, latency within budget. Raises Conflict before sync."""
        return self._judged(self._in(replica, incarnation, Stage.SYNCED), WARM_GATE, checks, Stage.WARMED)

    def probed(self, replica: str, incarnation: int, checks: tuple[Check, ...]) -> Step:
        """Judge what probes through the real data port gave. Raises Conflict before it was warmed."""
        return self._judged(self._in(replica, incarnation, Stage.WARMED), PROBE_GATE, checks, Stage.PROBED)

    def shown(self, message: Shown) -> Step:
        """Judge what a replica says that it found in itself, by the key that it joined with."""
        member = self._of(message.replica, message.incarnation)
        if member.key != message.key or not member.key:
            raise Denied(f"{message.replica} speaks with another key than it joined with: refuse it")
        judge = self.warmed if message.step == "warmed" else self.probed
        return judge(message.replica, message.incarnation, message.checks)

    def heeded(self, message: Vouched | Leaving, *, now_s: float) -> Step:
        """Take what an admitted replica says of itself or of its workers, and answer its newest beat once more.

        Who drains gets no lease any more, and what its workers showed is judged. Raises Conflict for a word that comes again, and
        where it has no part in anything now; Denied as `shown` does.
        """
        member = self._of(message.replica, message.incarnation)
        if member.key != message.key or not member.key:
            raise Denied(f"{message.replica} speaks with another key than it joined with: refuse it")
        if member.stage not in (Stage.ADMITTED, Stage.DRAINING):
            raise Conflict(f"{message.replica} is {member.stage}, not admitted: nobody waits for its word")
        if isinstance(message, Leaving):
            if member.stage is Stage.DRAINING:
                return Step(state=self)
            step = self._moved(_replace(member, since_s=now_s), Stage.DRAINING)
        else:
            if message.number <= member.vouched:
                raise Conflict(
                    f"word {message.number} of {message.replica} about workers comes again: drop it"
                )
            known, events = heeded(self.workers.get(member.replica, {}), message, revoked=self.revoked)
            state = _replace(self, workers={**self.workers, member.replica: known})
            step = Step(state=state._with(_replace(member, vouched=message.number)), events=events)
        answered = step.state.answer(member.replica, now_s=now_s)
        return _replace(answered, events=step.events + answered.events)

    def hear(self, beat: Beat, *, now_s: float) -> Step:
        """Take a beat and answer it; who has shown everything is admitted by this. A repeated or overtaken one is Conflict."""
        member = self._of(beat.replica, beat.incarnation)
        if member.key != beat.key or not member.key:
            raise Denied(f"{beat.replica} speaks with another key than it joined with: refuse it")
        if beat.number <= member.beat:
            raise Conflict(f"beat {beat.number} of {beat.replica} comes after {member.beat}: it is no news")
        member = _replace(member, beat=beat.number, serial=0, heard_s=now_s)
        if not member.lives:
            return self._with(member).answer(member.replica, now_s=now_s)
        told = self._proved(member, beat.loaded)
        if told is None:
            return self._with(member).quarantine(member.replica, "proved another content than its epoch has")
        member = _replace(member, proved=told)
        events: tuple[Event, ...] = ()
        if member.stage is Stage.ATTESTED and self.epochs.floor in told:
            member = _replace(member, stage=Stage.SYNCED)
            events = (_event("fleet.synced", member),)
        elif (
            member.stage is Stage.PROBED
            and self._may_serve(member)
            and self._is_guarded(member.pool, self._admitted(member.pool) + 1, now_s)
        ):
            member = _replace(member, stage=Stage.ADMITTED)
            events = (_event("fleet.admitted", member),)
        step = self._with(member).answer(member.replica, now_s=now_s)
        return _replace(step, events=events + step.events)

    # -- what admission says

    def answer(self, replica: str, *, now_s: float) -> Step:
        """Answer a replica's newest beat, again where it was answered: that is a push."""
        member = self._there(replica)
        state, ticket = self._granted(member, now_s)
        member = _replace(state.members[replica], serial=member.serial + 1)
        pool = self.terms.pool(member.pool)
        answer = Answer(
            replica=replica,
            incarnation=member.incarnation,
            key=member.key,
            answers=member.beat,
            serial=member.serial,
            floor=self.epochs.floor,
            bundles=self.epochs.bundles if member.lives else (),
            revoked=tuple(sorted(self.revoked)),
            ticket=ticket,
            drain_s=self.terms.drain_s if member.stage is Stage.DRAINING else None,
            roster=state.roster(now_s=now_s) if pool.follows and ticket is not None else (),
            learning=now_s < self.learning_until_s,
            workers=() if ticket is None else admitted(self.workers.get(replica, {}).items()),
        )
        return Step(state=state._with(member), answer=answer)

    # -- policy

    def prepare(self, bundle: Bundle, *, now_s: float) -> Step:
        """Offer a new epoch to all, beside the committed one. Raises Conflict as `Epochs.prepare` does."""
        state = _replace(self, epochs=self.epochs.prepare(bundle, now_s=now_s))
        return Step(state=state, events=(_epoch_event("fleet.prepared", bundle),))

    def commit(self, *, now_s: float) -> Step:
        """Make the prepared epoch the floor. Raises Conflict while a pool would fall below its minimum by that, or
        while nobody knows that, just after a restart.
        """
        bundle = self.epochs.prepared
        if bundle is None:
            raise Conflict("no epoch is prepared: prepare one first")
        if now_s < self.learning_until_s:
            raise Conflict(
                "admission was restarted and does not know yet who serves: wait for one lease's life"
            )
        short = self._short(bundle.epoch, now_s)
        if short:
            raise Conflict(
                f"too few replicas of {', '.join(short)} have loaded epoch {bundle.epoch}: wait for them"
            )
        state = _replace(self, epochs=self.epochs.commit())
        return Step(state=state._forget_epochs(), events=(_epoch_event("fleet.committed", bundle),))

    def withdraw(self) -> Step:
        """Take the prepared epoch back; its number is never used again."""
        bundle = self.epochs.prepared
        if bundle is None:
            raise Conflict("no epoch is prepared: there is nothing to withdraw")
        state = _replace(self, epochs=self.epochs.withdraw())
        return Step(state=state._forget_epochs(), events=(_epoch_event("fleet.withdrawn", bundle),))

    def revoke(self, identity: str) -> Step:
        """Revoke a replica's name, key or SVID for ever: at once, without the two phases."""
        if identity in self.revoked:
            return Step(state=self)
        state = _replace(self, revoked=self.revoked | {identity})
        events = [Event(kind="fleet.revoked", subject=identity)]
        for member in self.members.values():
            if member.lives and identity in (member.replica, member.key, member.svid):
                step = state.quarantine(member.replica, "revoked")
                state, events = step.state, [*events, *step.events]
        for gateway, known in state.workers.items():
            if identity in known:
                left, ends = without(known, identity, gateway)
                state = _replace(state, workers={**state.workers, gateway: left})
                events += ends
        return Step(state=state, events=tuple(events))

    def quarantine(self, replica: str, reason: str) -> Step:
        """Trust a replica's present incarnation no more. Only a new incarnation comes out of it."""
        member = self._there(replica)
        if not member.lives:
            return Step(state=self)
        return self._moved(_replace(member, reason=reason), Stage.QUARANTINED)

    # -- time

    def tick(self, *, now_s: float) -> Step:
        """Do what is due: quarantine who is late, commit what may be, withdraw what did not come about, forget who ended."""
        state = _replace(self, holds=in_force(self.holds, now_s))
        events: list[Event] = []
        for replica in sorted(self.members):
            reason = state._overdue(state.members[replica], now_s)
            if reason:
                step = state.quarantine(replica, reason)
                state, events = step.state, [*events, *step.events]
        step = state._forget(now_s)._epoch_due(now_s)
        return _replace(step, events=(*events, *step.events))

    def restarted(self, *, now_s: float) -> Admission:
        """Return the stored state for a clock that begins anew: everything that was granted counts again in full."""
        return _replace(
            self,
            members={name: one.counted_anew(now_s) for name, one in self.members.items()},
            holds=counted_anew(self.holds, now_s),
            epochs=self.epochs.counted_anew(now_s),
            learning_until_s=now_s + self.terms.ttl_s if self.holds else NEVER,
        )

    def durable(self) -> Any:
        """Return what must be stored before anything is said; equal where nothing such has changed."""
        members = {name: one.durable() for name, one in self.members.items()}
        holds = frozenset((one.holder, one.quota, one.length_s) for one in self.holds)
        return (
            self.epochs.counted_anew(0.0),
            members,
            holds,
            self.targets,
            self.scale_seq,
            self.revoked,
            self.past,
            self.workers,
        )

    # -- inside

    def _born(
        self,
        before: Member | None,
        replica: str,
        pool: str,
        scale_id: str,
        token: str,
        nonce: str,
        now_s: float,
    ) -> Member:
        return Member(
            replica=replica,
            pool=pool,
            scale_id=scale_id,
            incarnation=1 + (self.past if before is None else before.incarnation),
            token=digest_bytes(token.encode()),
            nonce=nonce,
            since_s=now_s,
            heard_s=now_s,
        )

    def _invited(self, member: Member, message: Attest) -> bool:
        return bool(message.token) and (
            digest_bytes(message.token.encode()) == member.token and message.nonce == member.nonce
        )

    def _epoch_due(self, now_s: float) -> Step:
        bundle = self.epochs.prepared
        if bundle is None:
            return Step(state=self)
        serving = [one for one in self.members.values() if self._serves(one, now_s)]
        passed_s = now_s - self.epochs.since_s
        waited = passed_s >= self.terms.patience_s or all(bundle.epoch in one.proved for one in serving)
        if waited and now_s >= self.learning_until_s and not self._short(bundle.epoch, now_s):
            return self.commit(now_s=now_s)
        return self.withdraw() if passed_s >= self.terms.prepare_s else Step(state=self)

    def _forget(self, now_s: float) -> Admission:
        """Forget replicas that ended long ago and hold nothing; what they did is in the ledger."""
        holders = {hold.holder for hold in self.holds}
        ended = [
            one
            for one in self.members.values()
            if not one.lives and one.svid not in holders and now_s - one.heard_s >= self.terms.join_s
        ]
        if not ended:
            return self
        members = {name: one for name, one in self.members.items() if one not in ended}
        return _replace(self, members=members, past=max(self.past, *(one.incarnation for one in ended)))

    def _forget_epochs(self) -> Admission:
        known = {bundle.epoch for bundle in self.epochs.bundles}
        members = {
            name: _replace(one, proved=tuple(epoch for epoch in one.proved if epoch in known))
            for name, one in self.members.items()
        }
        return _replace(self, members=members)

    def _judged(self, member: Member, gate: Gate, checks: tuple[Check, ...], then: Stage) -> Step:
        verdict = gate.judge(Evidence(subject=member.svid, checks=checks))
        if verdict.admitted:
            return self._moved(member, then)
        return self._moved(_replace(member, reason="; ".join(verdict.reasons)), Stage.QUARANTINED)

    def _moved(self, member: Member, stage: Stage) -> Step:
        member = _replace(member, stage=stage)
        events: tuple[Event, ...] = (_event(f"fleet.{stage}", member),)
        state = self
        if not member.lives:
            events += ended_with(
                self.workers.get(member.replica, {}), member.replica, f"its gateway is {stage}"
            )
            state = _replace(self, workers=_less(self.workers, member.replica))
        return Step(state=state._with(member), events=events)


def _less(workers: dict[str, Workers], gateway: str) -> dict[str, Workers]:
    return (
        {name: known for name, known in workers.items() if name != gateway} if gateway in workers else workers
    )


def _event(kind: str, member: Member) -> Event:
    body: dict[str, Scalar] = {
        "pool": member.pool, "incarnation": member.incarnation, "scale_id": member.scale_id,
    }  # fmt: skip
    if member.reason:
        body["reason"] = member.reason
    return Event(kind=kind, subject=member.svid, body=body)


def _epoch_event(kind: str, bundle: Bundle) -> Event:
    return Event(kind=kind, subject=f"epoch:{bundle.epoch}", body={"bundle": bundle.digest})


def _equal(name: str, found: str, wanted: str) -> Check:
    outcome = Outcome.PASSED if found == wanted else Outcome.FAILED
    return Check(name=name, outcome=outcome, observed=found[:80], limit=wanted)
