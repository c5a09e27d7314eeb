"""Deliveries in their table; one that is given up is a leaf of the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Row, insert, select, update

from taut.core.errors import NotFound
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx
from taut.ports.world import Clock, Ids
from taut.trust.deliveries.tables import deliveries
from taut.trust.ledger import Entry, Ledger

State = Literal["waiting", "delivered", "dead"]
_MAX_SAID: Final = 500


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """That one receiver is to hear of one change of an alert, or words about an incident. said: how the last attempt ended.

    alert: the alert or the incident. change: of the alert; `page` or `notice` of an incident, with its words.
    """

    id: str
    alert: str
    change: str
    receiver: str
    state: State
    attempts: int
    said: str
    made_at: datetime
    tried_at: datetime | None = None
    words: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. final: whether another one would end alike."""

    ok: bool
    said: str
    final: bool = False


class Deliveries:
    """The register of deliveries.

    Guarantees: a delivery is made with the change that it tells of, or neither is; one that is given up stays, and is a leaf.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock, ids: Ids) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids

    def add(self, tx: Tx, *, alert: str, change: str, receiver: str, words: str = "") -> str:
        """Make a delivery and return its id."""
        id_ = self._ids.new("delivery")
        tx.execute(
            insert(deliveries).values(
                id=id_, alert=alert, change=change, receiver=receiver, state="waiting", attempts=0, said="",
                words=words, made_us=to_us(self._clock.now()), tried_us=None,
            )
        )  # fmt: skip
        return id_

    def tried(self, tx: Tx, id: str, *, attempts: int, state: State, said: str) -> None:
        """Note how an attempt ended."""
        fields = {
            "attempts": attempts,
            "state": state,
            "said": said[:_MAX_SAID],
            "tried_us": to_us(self._clock.now()),
        }
        tx.execute(update(deliveries).where(deliveries.c.id == id).values(**fields))
        if state == "dead":
            delivery = delivery_of(tx, id)
            body = {
                "alert": delivery.alert,
                "change": delivery.change,
                "receiver": delivery.receiver,
                "said": delivery.said,
            }
            self._ledger.append(tx, Entry("delivery.given_up", f"delivery:{id}", "control", body))

    def list(
        self, *, alert: str | None = None, state: State | None = None, limit: int = 100
    ) -> tuple[Delivery, ...]:
        """Return deliveries, the newest first."""
        query = select(deliveries).order_by(deliveries.c.made_us.desc(), deliveries.c.id.desc()).limit(limit)
        if alert is not None:
            query = query.where(deliveries.c.alert == alert)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        with self._records.read() as tx:
            return tuple(_delivery(row) for row in tx.execute(query))


def delivery_of(tx: Tx, id_: str) -> Delivery:
    """Return a delivery. Raises NotFound."""
    row = tx.execute(select(deliveries).where(deliveries.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"no delivery {id_[:64]!r}: look at the alert that it is about")
    return _delivery(row)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id, alert=row.alert, change=row.change, receiver=row.receiver, state=row.state, attempts=row.attempts,
        said=row.said, made_at=from_us(row.made_us),
        tried_at=None if row.tried_us is None else from_us(row.tried_us), words=row.words,
    )  # fmt: skip
