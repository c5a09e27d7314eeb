"""Admission as it runs in control: its state in Records, what it decided in the ledger, both before anybody is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import insert, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput
from taut.core.evidence import Scalar
from taut.core.times import to_us
from taut.fleet.admission.core import Admission, Step
from taut.fleet.admission.epochs import Epochs
from taut.fleet.admission.messages import Attest, Bundle, Event, Invitation, Leaving, Shown, Vouched
from taut.fleet.admission.tables import alerts, state
from taut.fleet.admission.terms import Terms
from taut.fleet.admission.wire import open_message, sign_answer
from taut.fleet.log import ScaleLog
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Random
from taut.trust.ledger import Entry, Ledger

_SECRET_BYTES: Final = 32
_ACTOR: Final = "admission"
_DECODER: Final = msgspec.json.Decoder(Admission)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """That a pool is about to have another number of replicas."""

    scale_id: str
    body: dict[str, Scalar]


class AdmissionStore:
    """One admission, with its state on disk.

    Guarantees: what a step changed for good, its leaves and its alerts are stored, in one transaction, before `step`
    returns what may be said; where that fails nothing has changed. A renewal that grants no more than before writes
    nothing. Two that run at once exclude one another: the first to write wins, the other fails with Conflict from then on.
    Safe for threads.

    name: of the fleet that it admits; a fleet has one. bundle: what is committed where nothing was stored yet. Raises
    InvalidInput where `terms` lack a pool that still has replicas, Corrupt where the stored state cannot be read.
    """

    def __init__(
        self,
        *,
        records: Records,
        ledger: Ledger,
        keys: Keys,
        clock: Clock,
        random: Random,
        terms: Terms,
        bundle: Bundle,
        name: str = "fleet",
    ) -> None:
        self._records = records
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._random = random
        self._name = name
        self._lock = threading.Lock()
        first = Admission(terms=terms, epochs=Epochs(committed=bundle))
        self._version, stored = transact(records, lambda tx: self._load(tx, first))
        self._kept = stored.durable()
        self._state = stored.restarted(now_s=clock.monotonic_s())

    @property
    def state(self) -> Admission:
        return self._state

    def step(self, do: Callable[[Admission, float], Step]) -> Step:
        """Let something happen: `do` is given the state and the time. Raises what `do` and Records raise."""
        with self._lock:
            step = do(self._state, self._clock.monotonic_s())
            durable = step.state.durable()
            if step.events or durable != self._kept:
                version = self._version + 1
                transact(self._records, lambda tx: self._keep(tx, step, version))
                self._version, self._kept = version, durable
            self._state = step.state
            return step

    def hear(self, data: bytes, *, of: str = "") -> bytes:
        """Take what a replica said and return what is answered, signed; nothing, where it attested or showed something.

        of: the replica at the other end of the connection, where that is known; it speaks for no other.
        Raises Corrupt or Denied for what is not its word, and what `Admission.attest` and `Admission.hear` raise: then
        nothing has changed, and nothing is answered.
        """
        message = open_message(data)
        if of and message.replica != of:
            raise Denied(f"{of} speaks for {message.replica}: refuse it")
        if isinstance(message, Attest):
            self.step(lambda it, now_s: it.attest(message, now_s=now_s))
            return b""
        if isinstance(message, Shown):
            self.step(lambda it, _: it.shown(message))
            return b""
        if isinstance(message, Vouched | Leaving):
            return self._signed(self.step(lambda it, now_s: it.heeded(message, now_s=now_s)))
        return self._signed(self.step(lambda it, now_s: it.hear(message, now_s=now_s)))

    def push(self, replica: str) -> bytes:
        """Return the answer to a replica's newest beat as it would be now, signed: so nobody waits for his next beat."""
        return self._signed(self.step(lambda it, now_s: it.answer(replica, now_s=now_s)))

    def _signed(self, step: Step) -> bytes:
        return b"" if step.answer is None else sign_answer(self._keys, step.answer).to_json()

    def provision(self, replica: str, pool: str) -> Invitation:
        """Return the invitation of a process that is about to be started, with a fresh token and nonce."""
        token, nonce = (self._random.bytes(_SECRET_BYTES).hex() for _ in range(2))
        step = self.step(lambda it, now_s: it.provision(replica, pool, token=token, nonce=nonce, now_s=now_s))
        assert step.invitation is not None
        return step.invitation

    def follow(self, log: ScaleLog) -> int:
        """Take what is new on the scale log and return how many events that were."""
        found = log.read(after=self._state.scale_seq)
        for event in found:
            self.step(lambda it, _, event=event: it.scaled(event))  # type: ignore[misc]
        return len(found)

    def untold(self) -> tuple[Alert, ...]:
        """Return the alerts that nobody said to have told yet, oldest first; tell them by `scale_id`, which dedupes."""
        with self._records.read() as tx:
            rows = tx.execute(
                select(alerts).where(alerts.c.told_us.is_(None)).order_by(alerts.c.scale_id)
            ).all()
        return tuple(Alert(scale_id=row.scale_id, body=msgspec.json.decode(row.body)) for row in rows)

    def told(self, scale_id: str) -> None:
        """Write down that an alert was told."""
        now_us = to_us(self._clock.now())
        query = update(alerts).where(alerts.c.scale_id == scale_id, alerts.c.told_us.is_(None))
        transact(self._records, lambda tx: tx.execute(query.values(told_us=now_us)))

    def _load(self, tx: Tx, first: Admission) -> tuple[int, Admission]:
        row = tx.execute(select(state).where(state.c.name == self._name)).first()
        if row is None:
            tx.execute(
                insert(state).values(name=self._name, version=1, state=msgspec.json.encode(first).decode())
            )
            return 1, first
        try:
            found = _DECODER.decode(row.state)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"the state of admission of {self._name} cannot be read: {error}") from error
        pools = {pool.name for pool in first.terms.pools}
        for member in found.members.values():
            if member.pool not in pools:
                raise InvalidInput(
                    f"{member.replica} is of pool {member.pool!r}, which is declared no more: keep it until its "
                    "replicas have ended and are forgotten"
                )
        return row.version, msgspec.structs.replace(found, terms=first.terms)

    def _keep(self, tx: Tx, step: Step, version: int) -> None:
        text = msgspec.json.encode(step.state).decode()
        query = update(state).where(state.c.name == self._name, state.c.version == version - 1)
        if tx.execute(query.values(version=version, state=text)).rowcount != 1:
            raise Conflict(f"another admission of {self._name} has written its state: let this one end")
        self._ledger.append_many(tx, (_entry(event) for event in step.events))
        for event in step.events:
            if event.kind == "fleet.scaled":
                tx.execute(
                    insert(alerts).values(scale_id=event.subject, body=canonical_json(event.body).decode())
                )


def _entry(event: Event) -> Entry:
    return Entry(event.kind, event.subject, _ACTOR, dict(event.body))
