"""Sessions of people who signed in: opaque, hashed at rest, ended by idleness, by age or by anybody who may."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Row, delete, insert, select, update

from taut.core.errors import NotFound, Unauthenticated
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids, Random
from taut.trust.identity.principals import Principal
from taut.trust.identity.rows import find_principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.signin.tables import sessions
from taut.trust.signin.throttle import address_key

PREFIX: Final = "tauts_"
"""Of a session's text. API keys begin with `taut_`; a token has no prefix."""

SessionKind = Literal["console", "command"]

_IDLE: Final[dict[str, timedelta]] = {"console": timedelta(minutes=15), "command": timedelta(hours=1)}
LIFE: Final = timedelta(hours=12)
_SKEW: Final = timedelta(seconds=10)
_TOUCH: Final = timedelta(minutes=1)
_EACH_MAX: Final = 10


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is signed in.

    proved_at: when he last proved who he is; None where a provider does not say. expires_at: at the latest.
    """

    id: str
    principal: Principal
    kind: SessionKind
    method: str
    started_at: datetime
    proved_at: datetime | None
    seen_at: datetime
    expires_at: datetime


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A new session and its text, which is never shown again."""

    session: Session
    secret: str


class Sessions:
    """The sessions of one installation.

    Guarantees: a session holds only while its person exists, is not disabled and has a role, with the roles that he
    has at that moment; one that ended is never accepted again; a person has at most 10. The database holds hashes of 256 random bits.
    Not guaranteed: that idleness is measured finer than a minute.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock, ids: Ids, random: Random) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids
        self._random: Final = random

    def start(
        self,
        tx: Tx,
        principal: str,
        *,
        kind: SessionKind,
        method: str,
        proved_at: datetime | None,
        address: str = "",
    ) -> Started:
        """Begin a session for somebody who was proved to be `principal`. Raises Unauthenticated for who may not sign in.

        address: of his machine where it is known, kept in the erasable part of the leaf, shortened as for counting attempts.
        """
        now = self._clock.now()
        self._make_room(tx, principal, now)
        secret = PREFIX + urlsafe_b64encode(self._random.bytes(32)).rstrip(b"=").decode("ascii")
        id_ = self._ids.new("ses")
        tx.execute(
            insert(sessions).values(
                id=id_, secret_sha256=_digest(secret), principal=principal, kind=kind, method=method,
                started_at_us=to_us(now), seen_at_us=to_us(now),
                proved_at_us=None if proved_at is None else to_us(proved_at),
            )
        )  # fmt: skip
        body: dict[str, object] = {"session": id_, "kind": kind, "method": method}
        told = {"from": address_key(address)} if address else None
        subject = f"principal:{principal}"
        self._ledger.append(tx, Entry("identity.session.started", subject, principal, body, told))
        return Started(session=self._whole(tx, self._row(tx, id_), now), secret=secret)

    def find(self, secret: str) -> Session:
        """Return the live session of a text, and count it as seen. Raises Unauthenticated for anything else."""
        now = self._clock.now()
        with self._records.read() as tx:
            row = tx.execute(
                select(sessions).where(sessions.c.secret_sha256 == _digest(secret))
            ).one_or_none()
            if row is None:
                raise Unauthenticated("the session is unknown or has ended: sign in with `taut login`")
            found = self._whole(tx, row, now)
        if now - found.seen_at >= _TOUCH:
            seen = update(sessions).where(sessions.c.id == found.id).values(seen_at_us=to_us(now))
            transact(self._records, lambda tx: tx.execute(seen))
        return found

    def end(self, id: str, *, actor: str, of: str | None = None) -> None:
        """End a session. of: only where it is this person's. Raises NotFound where there is none such."""

        def do(tx: Tx) -> None:
            row = tx.execute(select(sessions).where(sessions.c.id == id)).one_or_none()
            if row is None or (of is not None and row.principal != of):
                raise NotFound(f"no session {id[:64]!r}: list them with `taut session list`")
            tx.execute(delete(sessions).where(sessions.c.id == id))
            self._leaf(tx, "identity.session.ended", row.principal, actor=actor, body={"session": id})

        transact(self._records, do)

    def end_all(self, tx: Tx, principal: str, *, actor: str) -> int:
        """End every session of a person and return how many there were."""
        count = int(tx.execute(delete(sessions).where(sessions.c.principal == principal)).rowcount)
        if count:
            self._leaf(tx, "identity.sessions.ended", principal, actor=actor, body={"sessions": count})
        return count

    def list(self, principal: str | None = None) -> tuple[Session, ...]:
        """Return the live sessions, the newest first."""
        now = self._clock.now()
        query = select(sessions).order_by(sessions.c.started_at_us.desc(), sessions.c.id)
        if principal is not None:
            query = query.where(sessions.c.principal == principal)
        found = []
        with self._records.read() as tx:
            for row in tx.execute(query).all():
                try:
                    found.append(self._whole(tx, row, now))
                except Unauthenticated:
                    continue  # over, and not yet swept away
        return tuple(found)

    def _whole(self, tx: Tx, row: Row[Any], now: datetime) -> Session:
        """Return a row as a session. Raises Unauthenticated, with the reason, when it does not hold any more."""
        started, seen = from_us(row.started_at_us), from_us(row.seen_at_us)
        if now < seen - _SKEW:
            raise Unauthenticated("the clock was set back since this session was used: sign in again")
        if now >= started + LIFE:
            raise Unauthenticated("the session has come to its end: sign in again with `taut login`")
        if now >= seen + _IDLE[row.kind]:
            raise Unauthenticated(
                "nothing was done in this session for too long: sign in again with `taut login`"
            )
        person = find_principal(tx, row.principal)
        if person is None or person.disabled or not person.roles:
            raise Unauthenticated("the person of this session may not act any more: ask an administrator")
        return Session(
            id=row.id, kind=row.kind, method=row.method, started_at=started, seen_at=seen, expires_at=started + LIFE,
            principal=Principal(id=person.id, kind=person.kind, roles=person.roles, credential=row.id),
            proved_at=None if row.proved_at_us is None else from_us(row.proved_at_us),
        )  # fmt: skip

    def _row(self, tx: Tx, id_: str) -> Row[Any]:
        return tx.execute(select(sessions).where(sessions.c.id == id_)).one()

    def _make_room(self, tx: Tx, principal: str, now: datetime) -> None:
        """Sweep away what is over, and the oldest of a person who has as many as he may."""
        tx.execute(delete(sessions).where(sessions.c.started_at_us <= to_us(now - LIFE)))
        own = select(sessions.c.id).where(sessions.c.principal == principal)
        oldest = own.order_by(sessions.c.started_at_us.desc(), sessions.c.id.desc()).offset(_EACH_MAX - 1)
        for (id_,) in tx.execute(oldest).all():
            tx.execute(delete(sessions).where(sessions.c.id == id_))

    def _leaf(self, tx: Tx, kind: str, principal: str, *, actor: str, body: dict[str, object]) -> None:
        self._ledger.append(tx, Entry(kind=kind, subject=f"principal:{principal}", actor=actor, body=body))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
