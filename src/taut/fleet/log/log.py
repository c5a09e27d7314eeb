"""The scale log on Records: one row an event, signed by the autoscaler's key, each with its leaf in the ledger."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import func, insert, select

from taut.core.errors import Corrupt
from taut.core.times import to_us
from taut.fleet.log.event import ScaleEvent
from taut.fleet.log.tables import events
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx
from taut.ports.world import Clock, Ids
from taut.trust.ledger import Entry, Ledger
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

PAYLOAD_TYPE: Final = "application/vnd.taut.scale-event+json"
READ_MAX: Final = 1000


class ScaleLog:
    """An append-only log of how many replicas each pool shall have.

    Guarantees: places are 1, 2, 3 … without a gap, also with several writers; an event, its signature and its leaf
    commit together; a reader gets nothing that the autoscaler's key did not sign for that place, and no gap.

    Not guaranteed: that a cut tail is seen here; the ledger shows it.
    """

    def __init__(self, *, records: Records, ledger: Ledger, keys: Keys, clock: Clock, ids: Ids) -> None:
        self._records = records
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def append(self, tx: Tx, *, pool: str, n: int, reason: str, actor: str) -> ScaleEvent:
        """Say that `pool` shall have `n` replicas. Raises InvalidInput for a number out of range.

        A writer who was overtaken fails with Conflict, at the latest at commit: `transact` runs him again.
        """
        last: int = tx.execute(select(func.max(events.c.seq))).scalar_one() or 0
        event = ScaleEvent(
            seq=last + 1,
            scale_id=self._ids.new("scale"),
            pool=pool,
            n=n,
            reason=reason,
            at_us=to_us(self._clock.now()),
        )
        statement = sign_statement(
            self._keys, purpose="scale", payload_type=PAYLOAD_TYPE, payload=msgspec.to_builtins(event)
        )
        tx.execute(
            insert(events).values(
                seq=event.seq, scale_id=event.scale_id, statement=statement.to_json().decode()
            )
        )
        body = {"seq": event.seq, "pool": pool, "n": n, "reason": reason}
        self._ledger.append(tx, Entry("fleet.scale-intended", event.scale_id, actor, body))
        return event

    def read(self, *, after: int, limit: int = READ_MAX) -> tuple[ScaleEvent, ...]:
        """Return the events after a place, in order, at most `limit`.

        Raises Corrupt where one is missing or stands in another's place, Denied or Corrupt where one is not signed by
        the autoscaler's key.
        """
        trusted = self._keys.public_keys(purpose="scale")
        query = select(events).where(events.c.seq > after).order_by(events.c.seq).limit(min(limit, READ_MAX))
        with self._records.read() as tx:
            rows = tx.execute(query).all()
        found = []
        for place, row in enumerate(rows, start=after + 1):
            payload = verify_statement(
                SignedStatement.from_json(row.statement), trusted, payload_type=PAYLOAD_TYPE
            )
            event = msgspec.convert(payload, ScaleEvent)
            if not place == row.seq == event.seq:
                raise Corrupt(
                    f"the scale log has event {event.seq} in row {row.seq} where {place} belongs: one was removed or moved"
                )
            found.append(event)
        return tuple(found)
