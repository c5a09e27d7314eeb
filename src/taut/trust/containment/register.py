"""Begins and lifts containments; each act is a leaf of the ledger, in one transaction with its row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.containment.tables import containments
from taut.trust.containment.values import Contained, Containment, Order
from taut.trust.identity.rows import get_principal, list_principals
from taut.trust.ledger import Entry, Ledger

CutOff = Callable[[Tx, str, str], None]
"""Ends the sessions and tokens of a principal, as an actor, inside a transaction."""

_MAX_WHY: Final = 500
_ATTEMPTS: Final = 32
_SHUTTING: Final = ("quarantine", "revoke")


class Containments:
    """The register of containments.

    Guarantees: each ends by itself; a person can lift it before. Of one principal and one action one holds at a time: another
    order prolongs it. The last person who administers the installation is never contained.
    Not guaranteed: that gateways know of one before their next snapshot, which follows within a second while control runs.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock, ids: Ids, *, cut_off: CutOff) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids
        self._cut_off: Final = cut_off

    def begin(self, order: Order, *, actor: str) -> Containment:
        """Contain somebody. Raises NotFound for a principal who is not there, Denied for the last administrator."""
        return transact(self._records, lambda tx: self.begin_in(tx, order, actor=actor), attempts=_ATTEMPTS)

    def begin_in(self, tx: Tx, order: Order, *, actor: str) -> Containment:
        """As `begin`, if and only if `tx` commits."""
        get_principal(tx, order.principal)
        now = self._clock.now()
        self._spare_last_admin(tx, order, now)
        until_us = to_us(now + order.lasts)
        held = next((one for one in _holding(tx, now, order.principal) if one.action == order.action), None)
        if held is not None:
            change = update(containments).where(containments.c.id == held.id)
            tx.execute(change.values(until_us=max(to_us(held.until), until_us)))
            self._leaf(
                tx, "containment.prolonged", held.id, actor, {"until_us": until_us, "alert": order.alert}
            )
            return get(tx, held.id)
        row = {
            "id": self._ids.new("hold"), "principal": order.principal, "action": order.action, "per_s": order.per_s,
            "allowed": canonical_json(order.allowed).decode(), "reason": order.reason, "alert": order.alert,
            "begun_by": actor, "begun_us": to_us(now), "until_us": until_us, "lifted_us": None, "lifted_by": None,
            "lifted_why": "",
        }  # fmt: skip
        tx.execute(insert(containments).values(row))
        told = {name: row[name] for name in ("principal", "action", "per_s", "reason", "alert", "until_us")}
        self._leaf(tx, "containment.begun", str(row["id"]), actor, {**told, "allowed": list(order.allowed)})
        if order.action == "step_up":
            self._cut_off(tx, order.principal, actor)
        return get(tx, str(row["id"]))

    def lift(self, id: str, *, actor: str, why: str) -> Containment:
        """End a containment. Raises NotFound, Conflict where it is over, Denied to whoever it is about."""
        said = " ".join(why.split())
        if not said or len(said) > _MAX_WHY or not said.isprintable():
            raise InvalidInput(
                f"a containment is lifted for a reason of 1 to {_MAX_WHY} printable characters"
            )

        def do(tx: Tx) -> Containment:
            found, now = get(tx, id), self._clock.now()
            if found.lifted_at is not None or found.until <= now:
                raise Conflict(f"containment {id} is over: there is nothing to lift")
            if found.principal == actor:
                raise Denied(f"containment {id} is about {actor}: somebody else must lift it")
            change = update(containments).where(containments.c.id == id)
            tx.execute(change.values(lifted_us=to_us(now), lifted_by=actor, lifted_why=said))
            self._leaf(tx, "containment.lifted", id, actor, {"principal": found.principal, "why": said})
            return get(tx, id)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def lift_because(self, tx: Tx, alert: str, *, actor: str, why: str) -> int:
        """Lift what holds because of an alert, if and only if `tx` commits; return how many."""
        now = self._clock.now()
        found = [one for one in _holding(tx, now, None) if one.alert == alert]
        for one in found:
            change = update(containments).where(containments.c.id == one.id)
            tx.execute(change.values(lifted_us=to_us(now), lifted_by=actor, lifted_why=why))
            self._leaf(tx, "containment.lifted", one.id, actor, {"principal": one.principal, "why": why})
        return len(found)

    def refuse(self, tx: Tx, order: Order, why: str) -> None:
        """Note that an order was not carried out, so that people see it."""
        body = {"principal": order.principal, "action": order.action, "why": why}
        self._ledger.append(tx, Entry("containment.refused", f"finding:{order.alert}", "policy", body))

    def holding(self, principal: str | None = None) -> tuple[Containment, ...]:
        """Return what holds now, the eldest first."""
        with self._records.read() as tx:
            return _holding(tx, self._clock.now(), principal)

    def contained(self) -> tuple[Contained, ...]:
        """Return what holds now as gateways know it; a part of the serving snapshot."""
        return tuple(as_contained(one) for one in self.holding())

    def list(self, *, over: bool = False, limit: int = 100) -> tuple[Containment, ...]:
        """Return containments, the newest first. over: those that were lifted or ran out too."""
        if not over:
            return tuple(reversed(self.holding()))[:limit]
        query = (
            select(containments)
            .order_by(containments.c.begun_us.desc(), containments.c.id.desc())
            .limit(limit)
        )
        with self._records.read() as tx:
            return tuple(_containment(row) for row in tx.execute(query))

    def _spare_last_admin(self, tx: Tx, order: Order, now: datetime) -> None:
        people = [one for one in list_principals(tx) if "admin" in one.roles and not one.disabled]
        if order.principal not in {one.id for one in people}:
            return
        shut = {one.principal for one in _holding(tx, now, None) if one.action in _SHUTTING}
        left = [
            one for one in people if one.kind == "human" and one.id != order.principal and one.id not in shut
        ]
        if not left:
            raise Denied(
                f"{order.principal} is the last who administers this installation and is not contained: make another "
                "administrator first"
            )

    def _leaf(self, tx: Tx, kind: str, id_: str, actor: str, body: dict[str, Any]) -> None:
        self._ledger.append(tx, Entry(kind, f"containment:{id_}", actor, body))


def as_contained(one: Containment) -> Contained:
    return Contained(
        id=one.id, principal=one.principal, action=one.action, until_us=to_us(one.until), per_s=one.per_s,
        allowed=one.allowed,
    )  # fmt: skip


def get(tx: Tx, id_: str) -> Containment:
    """Return a containment inside a transaction. Raises NotFound."""
    row = tx.execute(select(containments).where(containments.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"no containment {id_[:64]!r}: list them with `taut contain list --all`")
    return _containment(row)


def _holding(tx: Tx, now: datetime, principal: str | None) -> tuple[Containment, ...]:
    query = select(containments).where(
        containments.c.lifted_us.is_(None), containments.c.until_us > to_us(now)
    )
    if principal is not None:
        query = query.where(containments.c.principal == principal)
    found = tx.execute(query.order_by(containments.c.begun_us, containments.c.id))
    return tuple(_containment(row) for row in found)


def _containment(row: Row[Any]) -> Containment:
    return Containment(
        id=row.id, principal=row.principal, action=row.action, reason=row.reason, alert=row.alert,
        begun_by=row.begun_by, begun_at=from_us(row.begun_us), until=from_us(row.until_us), per_s=row.per_s,
        allowed=msgspec.json.decode(row.allowed, type=tuple[str, ...]),
        lifted_at=None if row.lifted_us is None else from_us(row.lifted_us), lifted_by=row.lifted_by,
        lifted_why=row.lifted_why,
    )  # fmt: skip
