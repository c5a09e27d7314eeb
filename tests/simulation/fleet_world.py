"""A fleet under a hostile network, with true time, and the invariants of admission as judged from outside.

The world knows what really happened: which process did what, when an epoch was committed, when a key was revoked. It looks
at nothing that the code under test believes but at what it does: a gateway that uses a process, a process that serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import msgspec

from taut.core.errors import TautError
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import (
    Admission,
    Answer,
    Attest,
    Beat,
    Bundle,
    Epochs,
    Event,
    GatewayView,
    Invitation,
    Pin,
    Pool,
    ReplicaView,
    Risk,
    Stage,
    Terms,
    proof_of,
)
from taut.fleet.admission.terms import Grace, Need
from taut.fleet.log.event import ScaleEvent

QUOTA, MINIMUM, EACH, TTL_S = 100, 2, 2, 4.0
TERMS = Terms(
    pools=(
        Pool(name="gateway", artifacts="sha256:g", quota=QUOTA, follows=True),
        Pool(
            name="model", artifacts="sha256:m", quota=QUOTA, minimum=MINIMUM,
            needs=Need(pool="gateway", each=EACH),  # as if a gateway's own detectors guarded so many workers
        ),
    ),
    ttl_s=TTL_S, skew=0.05, join_s=20.0, patience_s=1.0, prepare_s=6.0, drain_s=5.0,
    grace=(Grace(risk="low", ttl_s=30.0), Grace(risk="medium", ttl_s=10.0)),
)  # fmt: skip
GRACE_S: dict[Risk, float] = {"low": 30.0, "medium": 10.0, "high": 0.0}
RATES = (1.0, 1.05, 0.95, 1.02)
STEPS = {"attested", "synced", "warmed", "probed"}


class Broken(AssertionError):
    """An invariant does not hold; the message begins with its name."""


class Rules(NamedTuple):
    """The code under test; a seeded bug replaces one of these."""

    admission: type[Admission] = Admission
    replica: type[ReplicaView] = ReplicaView
    gateway: type[GatewayView] = GatewayView


@dataclass(eq=False)
class Process:
    """One process as it really is. `did`: the steps of admission that it really passed."""

    invitation: Invitation
    key: str
    rate: float
    start_s: float
    view: Any
    honest: bool = True
    dead: bool = False
    cut: bool = False
    did: set[str] = field(default_factory=set)
    granted_s: float = -1e9  # when control last gave it a ticket
    drains_at_s: float | None = None
    in_flight: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.invitation.replica

    @property
    def own(self) -> ReplicaView:
        own: ReplicaView = self.view.own if isinstance(self.view, GatewayView) else self.view
        return own

    def clock(self, now_s: float) -> float:
        return 1000.0 + (now_s - self.start_s) * self.rate


@dataclass(eq=False)
class Request:
    """One request on its way: through which gateway, pinned to what, and under which epochs it was served so far."""

    number: int
    gateway: Process
    pin: Pin
    risk: Risk
    epochs: set[int] = field(default_factory=set)


class World:
    """Two gateways and three workers at first, all admitted; what happens then is up to whoever calls."""

    def __init__(self, rules: Rules = Rules()) -> None:  # noqa: B008 - a frozen value
        self.rules = rules
        self.now_s = 0.0
        self.boots = 0
        first = Bundle(epoch=1, policy="p1")
        self.control = rules.admission(terms=TERMS, epochs=Epochs(committed=first))
        self.disk = self.control
        self.boot_s = 0.0
        self.up = True
        self.log: list[ScaleEvent] = []
        self.numbers = count(1)
        self.net: list[tuple[str, Beat | Answer | Attest]] = []
        self.processes: list[Process] = []
        self.floors: dict[str, int] = {}  # each replica's own disk
        self.commits: list[tuple[float, int]] = [(-1e9, 1)]
        self.revoked: dict[str, float] = {}
        self.events: list[Event] = []
        self.requests: list[Request] = []
        self.served = 0
        self.scale("gateway", 2)
        self.scale("model", 3)
        for pool in ("gateway", "gateway", "model", "model", "model"):
            self.start(pool)
        self.settle()

    # -- control

    def control_clock(self) -> float:
        return 5.0 + 1.03 * (self.now_s - self.boot_s)

    def do(self, what: str, /, *args: Any, timed: bool = False, **kwargs: Any) -> Answer | None:
        """Let control do one thing as its runner would: keep what must be kept, then say what may be said."""
        if not self.up:
            return None
        if timed:
            kwargs["now_s"] = self.control_clock()
        before = self.control
        try:
            step = getattr(before, what)(*args, **kwargs)
        except TautError:
            return None
        self.control = step.state
        if step.state.durable() != self.disk.durable():
            self.disk = step.state
        for event in step.events:
            self.record(event, before)
        if step.invitation is not None:
            self.born(step.invitation)
        if step.answer is not None:
            self.said(step.answer)
        answer: Answer | None = step.answer
        return answer

    def record(self, event: Event, before: Admission) -> None:
        self.events.append(event)
        if event.kind == "fleet.scaled" and sum(e == event for e in self.events) > 1:
            raise Broken(f"I11: the alert of {event.subject} was sent twice")
        if event.kind == "fleet.admitted":
            scale_id = event.body["scale_id"]
            if not any(e.kind == "fleet.scaled" and e.subject == scale_id for e in self.events):
                raise Broken(f"I11: {event.subject} was admitted before the alert of {scale_id}")
            if event.body["pool"] == "model":
                self.look_at_capacity(before)
        if event.kind == "fleet.committed":
            epoch = int(event.subject.removeprefix("epoch:"))
            self.commits.append((self.now_s, epoch))
            for pool in TERMS.pools:
                now = [
                    p for p in self.processes if p.invitation.pool == pool.name and self.has_lease(p, before)
                ]
                after = [p for p in now if epoch in before.members[p.name].proved]
                if len(after) < min(pool.minimum, len(now)):
                    raise Broken(f"I10: epoch {epoch} left {len(after)} of {len(now)} in {pool.name}")

    def look_at_capacity(self, before: Admission) -> None:
        """One more worker is admitted: are there detectors for all of them?"""
        leased = [p for p in self.processes if self.now_s < p.granted_s + TTL_S]
        workers = sum(p.invitation.pool == "model" and self.has_lease(p, before) for p in leased) + 1
        guards = sum(p.invitation.pool == "gateway" for p in leased)
        if workers > EACH * guards:
            raise Broken(f"capacity: {workers} workers are admitted where {guards} guard {EACH} each")

    def has_lease(self, process: Process, control: Admission) -> bool:
        member = control.members.get(process.name)
        return (
            not process.dead
            and member is not None
            and member.stage is Stage.ADMITTED
            and member.key == process.key
            and self.now_s < process.granted_s + TTL_S / 1.05
        )

    def said(self, answer: Answer) -> None:
        for process in self.processes:
            if process.key == answer.key and answer.ticket is not None:
                process.granted_s = self.now_s
        self.net.append((answer.replica, answer))

    def scale(self, pool: str, n: int) -> None:
        event = ScaleEvent(
            seq=len(self.log) + 1,
            scale_id=f"scale_{len(self.log) + 1}",
            pool=pool,
            n=n,
            reason="load",
            at_us=0,
        )
        self.log.append(event)
        self.read_log(len(self.log) - 1)

    def grow(self, pool: str, n: int, *, honest: bool) -> None:
        if self.up:
            self.scale(pool, n)
            before = len(self.processes)
            self.start(pool)
            for process in self.processes[before:]:
                process.honest = honest

    def read_log(self, place: int) -> None:
        if self.log:
            self.do("scaled", self.log[place % len(self.log)])

    def crash_control(self) -> None:
        self.up = False

    def restart_control(self) -> None:
        self.up = True
        self.boots += 1
        self.boot_s = self.now_s
        self.control = self.disk.restarted(now_s=self.control_clock())
        for event in self.log:
            self.do("scaled", event)

    def new_epoch(self) -> None:
        epoch = max(self.control.epochs.newest, self.control.epochs.floor) + 1
        self.do("prepare", Bundle(epoch=epoch, policy=f"p{epoch}"), timed=True)

    def force_commit(self) -> None:
        self.do("commit", timed=True)

    def revoke(self, index: int) -> None:
        process = self.pick(index)
        if process is not None and self.up:
            self.do("revoke", process.key)
            self.revoked.setdefault(process.key, self.now_s)

    # -- processes

    def pick(self, index: int, pool: str | None = None) -> Process | None:
        found = [p for p in self.processes if not p.dead and pool in (None, p.invitation.pool)]
        return found[index % len(found)] if found else None

    def start(self, pool: str, replica: str | None = None) -> None:
        number = next(self.numbers)
        self.do(
            "provision",
            replica or f"{pool}-{number}",
            pool,
            token=f"t{number}",
            nonce=f"n{number}",
            timed=True,
        )

    def born(self, invitation: Invitation) -> None:
        if self.process_of(invitation.replica, invitation.incarnation) is not None:
            raise Broken(
                f"I8: {invitation.replica} is in incarnation {invitation.incarnation} for the second time"
            )
        number = next(self.numbers)
        artifacts = "sha256:g" if invitation.pool == "gateway" else "sha256:m"
        key = f"key{number}"
        view: Any = self.rules.replica(
            terms=TERMS,
            invitation=invitation,
            key=key,
            artifacts=artifacts,
            floor=self.floors.get(invitation.replica, 0),
        )
        if invitation.pool == "gateway":
            view = self.rules.gateway(own=view)
        rate = RATES[number % len(RATES)]
        self.processes.append(Process(invitation, key, rate, self.now_s, view))

    def corrupt(self, index: int) -> None:
        """Let a worker lie from now on: it serves whatever it is asked, and proves nothing new truly."""
        process = self.pick(index, "model")
        if process is not None:
            process.honest = False

    def restart(self, index: int) -> None:
        process = self.pick(index)
        if process is not None and self.up:
            process.dead = process.honest  # a liar may live on
            self.start(process.invitation.pool, process.name)

    def replace(self, index: int) -> None:
        """A replica is given up and started elsewhere, though it lives on behind a partition."""
        process = self.pick(index)
        if process is not None and self.up:
            self.start(process.invitation.pool, process.name)

    def end(self, index: int) -> None:
        process = self.pick(index, "model")
        if process is not None:
            process.dead = True
            self.do("gone", process.name, process.invitation.incarnation)

    def cut(self, index: int) -> None:
        process = self.pick(index)
        if process is not None:
            process.cut = not process.cut

    # -- words

    def join(self, process: Process) -> None:
        attest = process.own.attest()
        self.do("attest", attest, timed=True)
        member = self.control.members.get(process.name)
        if member is not None and member.key == process.key:
            process.did.add("attested")

    def join_again(self, index: int) -> None:
        """A thief uses a token that he saw: with a key of his own, as the same incarnation."""
        process = self.pick(index)
        if process is None:
            return
        thief = msgspec.structs.replace(process.own.attest(), key=f"thief{next(self.numbers)}")
        self.do("attest", thief, timed=True)
        member = self.control.members.get(process.name)
        if "attested" in process.did and member is not None and member.key == thief.key:
            raise Broken(f"I9: a used join token let {thief.key} in as {process.name}")

    def send_beat(self, process: Process) -> Beat:
        view, beat = process.own.beat(now_s=process.clock(self.now_s))
        self.keep(process, view)
        if not process.honest:
            beat = msgspec.structs.replace(beat, loaded=())
        self.net.append(("control", beat))
        return beat

    def keep(self, process: Process, own: ReplicaView) -> None:
        if isinstance(process.view, GatewayView):
            process.view = msgspec.structs.replace(process.view, own=own)
        else:
            process.view = own

    def deliver(self, index: int, *, again: bool = False) -> None:
        """Deliver some message, whenever it was sent; `again` leaves it on the way, to come once more."""
        if self.net:
            at = index % len(self.net)
            to, message = self.net[at] if again else self.net.pop(at)
            self.arrive(to, message)

    def lose(self, index: int) -> None:
        if self.net:
            self.net.pop(index % len(self.net))

    def arrive(self, to: str, message: Beat | Answer | Attest) -> None:
        if to == "control":
            assert isinstance(message, Beat)
            sender = self.process_of(message.replica, message.incarnation)
            if sender is None or not sender.cut:
                self.heard_by_control(sender, message)
            return
        assert isinstance(message, Answer)
        for process in self.processes:
            if process.name == to and not process.dead and not process.cut:
                self.heard_by(process, message)

    def heard_by_control(self, sender: Process | None, beat: Beat) -> None:
        if sender is not None and self.up:
            current = self.control.epochs.committed
            mac = proof_of(current, nonce=sender.invitation.nonce)
            if any(one.epoch == current.epoch and one.mac == mac for one in beat.loaded):
                sender.did.add("synced")
        self.do("hear", beat, timed=True)

    def heard_by(self, process: Process, answer: Answer) -> None:
        before = process.own.floor
        try:
            process.view = process.view.hear(answer, now_s=process.clock(self.now_s))
        except TautError:
            return
        for bundle in process.own.offered:
            self.keep(process, process.own.load(bundle))
        if process.own.floor < max(before, self.floors.get(process.name, 0)):
            raise Broken(f"I4: {process.name} went from epoch {before} to {process.own.floor}")
        self.floors[process.name] = max(process.own.floor, self.floors.get(process.name, 0))
        if answer.drain_s is not None and process.drains_at_s is None:
            process.drains_at_s = self.now_s

    def process_of(self, replica: str, incarnation: int) -> Process | None:
        for process in self.processes:
            if process.name == replica and process.invitation.incarnation == incarnation:
                return process
        return None

    def exchange(self, process: Process) -> None:
        """Let a process talk with control without delay, once."""
        if process.dead or process.cut or not self.up:
            return
        if "attested" not in process.did:
            self.join(process)
        self.arrive(*self.take(self.send_beat(process)))
        if self.net and isinstance(self.net[-1][1], Answer):
            self.arrive(*self.net.pop())
        self.show(process)

    def take(self, message: Beat) -> tuple[str, Beat | Answer | Attest]:
        assert self.net[-1][1] is message
        return self.net.pop()

    def show(self, process: Process) -> None:
        """Do the next step that needs evidence, if it is this process's turn and it tells the truth."""
        member = self.control.members.get(process.name)
        if member is None or member.key != process.key or not process.honest:
            return
        for stage, what, names in (
            (Stage.SYNCED, "warmed", ("golden", "latency")),
            (Stage.WARMED, "probed", ("must_block", "must_pass", "tenant_isolation")),
        ):
            member = self.control.members[process.name]
            if member.stage is stage:
                process.did.add(what)
                checks = tuple(Check(name=name, outcome=Outcome.PASSED) for name in names)
                self.do(what, process.name, process.invitation.incarnation, checks)

    def talk(self, index: int) -> None:
        process = self.pick(index)
        if process is not None:
            self.exchange(process)

    def beat(self, index: int) -> None:
        process = self.pick(index)
        if process is not None:
            self.send_beat(process)

    def push(self, index: int) -> None:
        process = self.pick(index)
        if process is not None and self.do("answer", process.name, timed=True) is not None:
            self.arrive(*self.net.pop())

    def hold(self, index: int) -> Answer | None:
        """A replica's beat is answered, and the answer is held up on its way."""
        process = self.pick(index)
        if process is None or not self.up or process.cut:
            return None
        self.arrive(*self.take(self.send_beat(process)))
        found = self.net[-1][1] if self.net else None
        return found if isinstance(found, Answer) else None

    def answer_late(self, index: int, seconds: float, *, alone: bool) -> None:
        """An answer is held up while time passes, for all or while life goes on."""
        answer = self.hold(index)
        if alone:
            self.wait(seconds)
        else:
            self.live(round(seconds))
        if answer is not None:
            self.arrive(answer.replica, answer)

    def live(self, seconds: int, deaf: int = 0) -> None:
        """A while passes: who is reached talks each second, requests come in. deaf: who is not, a bit for each."""
        for _ in range(seconds):
            self.round(deaf)
            self.wait(1.0)

    def ask_all(self) -> None:
        """Requests of every risk come in everywhere, by honest gateways and by a careless one."""
        for risk in GRACE_S:
            for gateway in self.processes:
                if gateway.invitation.pool == "gateway" and not gateway.dead:
                    self.come_in(gateway, risk)
            for worker in self.processes:
                if worker.invitation.pool == "model" and worker.honest and not worker.dead:
                    for epoch in {epoch for _, epoch in self.commits[-2:]}:
                        self.serve(worker, epoch, risk, None)

    def round(self, deaf: int = 0) -> None:
        """Everybody who is reached talks once."""
        for place, process in enumerate(list(self.processes)):
            if not deaf >> place % 8 & 1:
                self.exchange(process)

    def settle(self) -> None:
        for _ in range(4):
            self.round()
            self.wait(0.2)

    def wait(self, seconds: float) -> None:
        self.look()
        self.now_s += seconds
        self.do("tick", timed=True)
        for process in self.processes:
            if process.own.must_abort(now_s=process.clock(self.now_s)):
                process.in_flight.clear()
        self.ask_all()

    # -- requests

    def request(self, index: int, risk: Risk) -> None:
        """A request comes in at a gateway and goes to the workers that the gateway would use."""
        gateway = self.pick(index, "gateway")
        if gateway is not None:
            self.come_in(gateway, risk)

    def come_in(self, gateway: Process, risk: Risk) -> None:
        now_s = gateway.clock(self.now_s)
        try:
            pin = gateway.view.pin(risk, now_s=now_s)
        except TautError:
            return
        self.judge_use(gateway, pin.epoch, risk, degraded=pin.degraded)
        request = Request(next(self.numbers), gateway, pin, risk)
        self.requests = [*self.requests[-3:], request]
        for worker in self.processes:
            if worker.invitation.pool == "model":
                self.hop(request, worker)

    def hop(self, request: Request, worker: Process, claimed: Process | None = None) -> None:
        """A gateway would send a pinned request to a process, which says that it is `claimed`."""
        gateway, now_s = request.gateway, request.gateway.clock(self.now_s)
        as_whom = (claimed or worker).invitation
        if gateway.dead or worker.dead:
            return
        try:
            ticket = gateway.view.check(
                as_whom.replica, as_whom.incarnation, worker.key, request.pin, request.risk, now_s=now_s
            )
        except TautError:
            return
        if (ticket.replica, ticket.incarnation, ticket.key) != (
            worker.name, worker.invitation.incarnation, worker.key,
        ):  # fmt: skip
            raise Broken(f"I9: {worker.key} was used by the ticket of {ticket.svid}")
        self.judge_use(worker, None, request.risk, degraded=request.pin.degraded)
        if worker.honest:
            self.serve(worker, request.pin.epoch, request.risk, request)

    def hop_late(self, index: int, which: int) -> None:
        worker = self.pick(which, "model")
        if self.requests and worker is not None:
            self.hop(self.requests[index % len(self.requests)], worker)

    def impersonate(self, index: int, which: int) -> None:
        liar, victim = self.pick(index, "model"), self.pick(which, "model")
        if self.requests and liar is not None and victim is not None and liar is not victim:
            self.hop(self.requests[-1], liar, victim)

    def ask_directly(self, index: int, risk: Risk, back: int) -> None:
        """A careless gateway asks a worker for any epoch, without looking at tickets."""
        worker = self.pick(index, "model")
        if worker is not None and worker.honest:
            self.serve(worker, max(1, self.commits[-1][1] - back % 3), risk, None)

    def serve(self, worker: Process, epoch: int, risk: Risk, request: Request | None) -> None:
        try:
            served = worker.own.may_serve(epoch, risk, now_s=worker.clock(self.now_s))
        except TautError:
            return
        self.served += 1
        number = next(self.numbers) if request is None else request.number
        worker.in_flight = {*list(worker.in_flight)[-3:], number}
        if worker.drains_at_s is not None:
            raise Broken(f"I7: {worker.name} took a request while it drained")
        self.judge_use(worker, served.bundle.epoch, risk, degraded=served.degraded)
        if request is not None:
            request.epochs.add(served.bundle.epoch)
            if request.epochs != {request.pin.epoch}:
                raise Broken(f"I5: a request pinned to {request.pin.epoch} was served under {request.epochs}")

    def finish(self, index: int) -> None:
        process = self.pick(index, "model")
        if process is not None:
            process.in_flight.clear()

    def drain(self, index: int) -> None:
        process = self.pick(index, "model")
        if process is not None:
            self.do("drain", process.name, timed=True)

    # -- what must hold

    def judge_use(self, process: Process, epoch: int | None, risk: Risk, *, degraded: bool) -> None:
        """Somebody used a process, or it served by itself: was that right, by what really happened?"""
        who, did = f"{process.name}#{process.invitation.incarnation}", process.did
        if not did >= STEPS:
            again = any(one.name == process.name for one in self.processes if one is not process)
            name = "I8" if again else "I1"
            raise Broken(f"{name}: {who} served without {', '.join(sorted(STEPS - did))}")
        held_s = GRACE_S[risk] if degraded else TTL_S
        revoked_s = self.revoked.get(process.key, 1e9)
        if self.now_s > revoked_s + held_s:
            raise Broken(f"I6: {who} served {self.now_s - revoked_s:.1f} s after it was revoked")
        if epoch is not None and epoch < self.committed_at(self.now_s - held_s):
            raise Broken(
                f"I2: {who} served epoch {epoch}, {self.committed_at(self.now_s - held_s)} is long committed"
            )
        if self.now_s > process.granted_s + held_s:
            raise Broken(
                f"lease: {who} served {risk} risk {self.now_s - process.granted_s:.1f} s after its ticket"
            )

    def committed_at(self, at_s: float) -> int:
        return max(epoch for then_s, epoch in self.commits if then_s <= at_s)

    def look(self) -> None:
        """What must hold at every moment."""
        for pool in TERMS.pools:
            using = sum(
                self.may_use(p) for p in self.processes if p.invitation.pool == pool.name and not p.dead
            )
            if using > pool.quota:
                raise Broken(
                    f"I3: replicas of {pool.name} may admit {using} together, {pool.quota} is the quota"
                )
        for process in self.processes:
            if process.drains_at_s is None or process.dead or not process.in_flight or not process.honest:
                continue
            if self.now_s > process.drains_at_s + TERMS.drain_s / (1 - TERMS.skew) + 0.01:
                raise Broken(f"I7: {process.name} has requests under way after its deadline")

    def may_use(self, process: Process) -> int:
        lease, now_s = process.own.lease, process.clock(self.now_s)
        if lease is None:
            return 0
        if now_s < lease.until_s:
            return lease.ticket.quota
        return lease.ticket.safe_quota if lease.in_grace("low", now_s) else 0

    def fair_end(self) -> None:
        """The network heals, control stays up: everybody is admitted or in quarantine within the bound."""
        if not self.up:
            self.restart_control()
        self.net.clear()
        for process in self.processes:
            process.cut = False
        for _ in range(int(1.5 * TERMS.join_s / 3)):
            self.round()
            self.wait(3.0)
        for process in self.processes:
            member = self.control.members.get(process.name)
            if (
                process.dead
                or member is None  # it ended, and was forgotten
                or member.key not in ("", process.key)
                or member.incarnation != process.invitation.incarnation
            ):
                continue
            settled = member.stage in (Stage.QUARANTINED, Stage.GONE, Stage.DRAINING) or (
                member.stage is Stage.ADMITTED and self.now_s < process.granted_s + TTL_S
            )
            if not settled:
                raise Broken(
                    f"L1: {process.name} is {member.stage} still, {1.5 * TERMS.join_s:g} s after all was well"
                )
