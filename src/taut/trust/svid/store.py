"""Which machines there are: invited, entered, renewed, revoked."""

from __future__ import annotations

import base64
import hashlib
from base64 import b32encode
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, insert, select, update

from taut.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Random
from taut.trust.identity import Identity, Principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.svid.ids import SpiffeId, check_machine_name, may_speak_to
from taut.trust.svid.issuer import Issuer, whole_second
from taut.trust.svid.mint import key_of_request, spki
from taut.trust.svid.proof import proves
from taut.trust.svid.read import Svid, read_svid, require_kind
from taut.trust.svid.tables import invitations, machines

ROLE: Final = "machine"
MAX_TTL: Final = timedelta(hours=24)
LATE: Final = timedelta(hours=24)
"""For how long after its end an identity may still be renewed by whoever has its key, as after a night without control."""

_PREFIX: Final = "tautjoin_"
_SECRET_BYTES: Final = 32
_MAX_BYTES: Final = 200

State = Literal["invited", "live", "lapsed", "revoked"]


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is given. id: its SPIFFE id. chain: its leaf and the certificate above it, DER in base64."""

    id: str
    chain: tuple[str, ...]


class MachineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. until: when its identity ends, or its invitation. live: it may speak; lapsed: it missed its renewals."""

    machine: str
    id: str
    state: State
    since: datetime | None = None
    renewed: datetime | None = None
    until: datetime
    serial: str = ""


class Machines:
    """The register of machines. Each act, with its leaf of the ledger, is one transaction.

    Guarantees: an invitation is taken once, within its time, by the machine that it names; coming again with the same key, as
    after an answer that was lost, gives the same machine its identity again. An identity is renewed by the key that was certified
    last, for a new key; by the one before it only for that same new key. So two homes that hold one identity cannot both go on.
    Not guaranteed: that other machines know a revocation before their next snapshot.
    actor, everywhere: who acts, for the ledger; whether he may is decided by policy before.
    """

    def __init__(
        self,
        records: Records,
        identity: Identity,
        issuer: Issuer,
        ledger: Ledger,
        clock: Clock,
        random: Random,
    ) -> None:
        self.issuer: Final = issuer
        self._records: Final = records
        self._identity: Final = identity
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._random: Final = random

    def invite(self, machine: str, ttl: timedelta, *, actor: str) -> tuple[str, datetime]:
        """Return the text of an invitation, which is never shown again, and until when it holds.

        A machine that nobody knows is added as a service with the role `machine`. Raises Conflict for a principal that is
        something else, InvalidInput for a name or a time that cannot be.
        """
        check_machine_name(machine)
        if not timedelta(seconds=1) <= ttl <= MAX_TTL:
            raise InvalidInput(f"an invitation cannot hold for {ttl}: give 1s to 24h")
        self._enrol(machine, actor)
        secret = _PREFIX + b32encode(self._random.bytes(_SECRET_BYTES)).rstrip(b"=").decode("ascii").lower()
        now = self._clock.now()

        def do(tx: Tx) -> None:
            tx.execute(delete(invitations).where(invitations.c.expires_at_us <= to_us(now)))
            tx.execute(
                insert(invitations).values(
                    secret_sha256=_digest(secret), machine=machine, made_at_us=to_us(now), made_by=actor,
                    expires_at_us=to_us(now + ttl),
                )
            )  # fmt: skip
            self._note(tx, "machine.invited", machine, actor, {"expires_s": int((now + ttl).timestamp())})

        transact(self._records, do)
        return secret, now + ttl

    def enter(self, secret: str, csr: str) -> Admitted:
        """Take an invitation. Raises Unauthenticated for one that is unknown, over, or was taken with another key.

        Whoever had the machine's identity before has it no more.
        """
        key = key_of_request(csr)
        shown = spki(key)
        if len(secret) > _MAX_BYTES or not secret.startswith(_PREFIX) or not secret.isascii():
            raise Unauthenticated(
                "this is no invitation of a machine: make one with `taut machine invite NAME`"
            )
        wanted = select(invitations).where(invitations.c.secret_sha256 == _digest(secret))
        with self._records.read() as tx:
            row = tx.execute(wanted).one_or_none()
        if row is None or self._clock.now() >= from_us(row.expires_at_us):
            raise Unauthenticated(
                "the invitation is unknown or over: make one with `taut machine invite NAME`"
            )
        if row.used_by not in (None, shown):
            self._replayed(row.machine)
        if row.used_by is None and self._row(row.machine) is not None:
            self._identity.revoke_tokens(row.machine, actor=row.machine)
        admitted, leaf = self._issue(row.machine, key)

        def do(tx: Tx) -> None:
            taken = tx.execute(
                update(invitations)
                .where(invitations.c.secret_sha256 == row.secret_sha256)
                .where(invitations.c.used_by.is_(None) | (invitations.c.used_by == shown))
                .values(used_by=shown)
            )
            if taken.rowcount != 1:  # another one took it since it was read
                raise Unauthenticated(_TAKEN)
            tx.execute(delete(machines).where(machines.c.machine == row.machine))
            tx.execute(
                insert(machines).values(
                    machine=row.machine, key=shown, key_before="", serial=leaf.serial, entered_at_us=to_us(leaf.issued_at),
                    renewed_at_us=to_us(leaf.issued_at), expires_at_us=to_us(leaf.not_after),
                )
            )  # fmt: skip
            facts: dict[str, object] = {"id": admitted.id, "serial": leaf.serial}
            self._note(tx, "machine.entered", row.machine, row.machine, facts)

        transact(self._records, do)
        return admitted

    def renew(self, machine: str, csr: str, proof: str) -> Admitted:
        """Certify another key for a machine. proof: of the key that was certified last; see `proof_of`.

        Raises Unauthenticated where that key did not sign, was revoked, or its identity ended longer ago than `LATE`.
        """
        key = key_of_request(csr)
        shown = spki(key)

        row = self._row(machine[:63])
        if row is None:
            raise Unauthenticated(f"no machine {machine[:63]!r} entered here: {_INVITE}")
        if row.revoked_at_us is not None:
            raise Unauthenticated(f"machine {machine!r} was revoked: {_INVITE}")
        able = (row.key, row.key_before) if row.key == shown and row.key_before else (row.key,)
        if not any(proves(pem, machine, csr, proof) for pem in able):
            raise Unauthenticated(
                f"machine {machine!r} was renewed by another key than this one: where two homes hold one identity, only one "
                f"goes on; {_INVITE}"
            )
        ended = from_us(row.expires_at_us)
        if self._clock.now() >= ended + LATE:
            raise Unauthenticated(
                f"the identity of machine {machine!r} ended at {ended:%Y-%m-%d %H:%M} UTC, too long ago to be renewed: {_INVITE}"
            )
        admitted, leaf = self._issue(machine, key)
        same = (
            (machines.c.machine == machine) & (machines.c.key == row.key) & machines.c.revoked_at_us.is_(None)
        )
        change = (
            update(machines)
            .where(same, machines.c.key_before == row.key_before)
            .values(
                key=shown, key_before=row.key_before if row.key == shown else row.key, serial=leaf.serial,
                renewed_at_us=to_us(leaf.issued_at), expires_at_us=to_us(leaf.not_after),
            )
        )  # fmt: skip
        if transact(self._records, lambda tx: tx.execute(change).rowcount) != 1:
            raise Conflict(f"machine {machine!r} was renewed or revoked at the same moment: ask again")
        return admitted

    def accept(self, shown: Svid) -> Principal:
        """Return as whom a machine acts that showed `shown` over TLS. Raises Unauthenticated where it may not any more."""
        require_kind(shown.id, self.issuer.domain, *may_speak_to("control"))
        shown.require_time(self._clock.now())
        machine = shown.id.name
        row = self._row(machine)
        if row is None or row.revoked_at_us is not None:
            raise Unauthenticated(f"machine {machine!r} was revoked: {_INVITE}")
        try:
            person = self._identity.principal(machine)
        except NotFound as error:
            raise Unauthenticated(error.message) from error
        if person.disabled or ROLE not in person.roles or to_us(shown.issued_at) < person.tokens_from_us:
            raise Unauthenticated(f"machine {machine!r} was disabled, or its identity revoked: {_INVITE}")
        return Principal(id=machine, kind="service", roles=(ROLE,), credential=shown.serial)

    def revoke(self, machine: str, *, actor: str) -> None:
        """Refuse a machine from now on, its invitations included. Doing it again changes nothing. Raises NotFound."""
        with self._records.read() as tx:
            invited = tx.execute(select(invitations).where(invitations.c.machine == machine)).first()
        row = self._row(machine)
        if row is None and invited is None:
            raise NotFound(f"no machine {machine[:63]!r} was invited or entered: see `taut machine list`")
        self._identity.revoke_tokens(machine, actor=actor)  # first: it is what other machines hear of

        def do(tx: Tx) -> None:
            tx.execute(delete(invitations).where(invitations.c.machine == machine))
            changed = tx.execute(
                update(machines)
                .where(machines.c.machine == machine, machines.c.revoked_at_us.is_(None))
                .values(revoked_at_us=to_us(self._clock.now()))
            )
            if changed.rowcount or invited is not None:
                self._note(tx, "machine.revoked", machine, actor, {})

        transact(self._records, do)

    def list(self) -> tuple[MachineRow, ...]:
        """Return who has which identity, by name; also who is invited and never entered."""
        now_us = to_us(self._clock.now())
        with self._records.read() as tx:
            entered = tx.execute(select(machines).order_by(machines.c.machine)).all()
            waiting = tx.execute(
                select(invitations).where(
                    invitations.c.used_by.is_(None), invitations.c.expires_at_us > now_us
                )
            ).all()
        known = {row.machine for row in entered}
        found = [
            MachineRow(
                machine=row.machine, id=self._id(row.machine), serial=row.serial, since=from_us(row.entered_at_us),
                renewed=from_us(row.renewed_at_us), until=from_us(row.expires_at_us),
                state="revoked" if row.revoked_at_us is not None else "live" if row.expires_at_us > now_us else "lapsed",
            )
            for row in entered
        ]  # fmt: skip
        newest = {
            row.machine: row
            for row in sorted(waiting, key=lambda row: row.expires_at_us)
            if row.machine not in known
        }
        found += [
            MachineRow(
                machine=row.machine,
                id=self._id(row.machine),
                state="invited",
                until=from_us(row.expires_at_us),
            )
            for row in newest.values()
        ]
        return tuple(sorted(found, key=lambda row: row.machine))

    def _id(self, machine: str) -> str:
        return str(SpiffeId(domain=self.issuer.domain, kind="machine", name=machine))

    def _row(self, machine: str) -> Any:
        with self._records.read() as tx:
            return tx.execute(select(machines).where(machines.c.machine == machine)).one_or_none()

    def _issue(self, machine: str, key: ec.EllipticCurvePublicKey) -> tuple[Admitted, Svid]:
        """Issue a leaf, never from before the moment that a revocation set, so that it is accepted."""
        person = self._identity.principal(machine)
        if person.disabled or ROLE not in person.roles:
            raise Unauthenticated(
                f"principal {machine!r} is disabled or has not the role {ROLE!r}: ask an administrator"
            )
        who = SpiffeId(domain=self.issuer.domain, kind="machine", name=machine)
        at = whole_second(max(self._clock.now(), from_us(person.tokens_from_us)))
        chain = self.issuer.issue(who, key, at=at)
        return Admitted(id=str(who), chain=tuple(base64.b64encode(der).decode() for der in chain)), read_svid(
            chain[0]
        )

    def _enrol(self, machine: str, actor: str) -> None:
        try:
            person = self._identity.principal(machine)
        except NotFound:
            self._identity.create_principal(machine, kind="service", roles=(ROLE,), actor=actor)
            return
        if person.kind != "service" or set(person.roles) != {ROLE} or person.disabled:
            raise Conflict(
                f"principal {machine!r} is something else than a machine, or disabled: choose another name"
            )

    def _replayed(self, machine: str) -> None:
        """Say loudly that one invitation came from two, since the other one may be the thief."""
        transact(self._records, lambda tx: self._note(tx, "machine.replayed", machine, machine, {}))
        raise Unauthenticated(_TAKEN)

    def _note(self, tx: Tx, kind: str, machine: str, actor: str, body: dict[str, object]) -> None:
        self._ledger.append(tx, Entry(kind=kind, subject=f"machine:{machine}", actor=actor, body=body))


_INVITE: Final = "an administrator runs `taut machine invite NAME`, and the machine `taut up --join URL --token INVITATION`"
_TAKEN: Final = (
    "the invitation was taken already, by another machine: if that was not yours, run `taut machine revoke NAME` now; then "
    "make another with `taut machine invite NAME`"
)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
