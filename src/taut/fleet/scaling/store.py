"""Keeps what hours taught about a pool's load, so that a control that starts anew knows what is usual and what was spent."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import delete, insert, select

from taut.core.canonical import canonical_json
from taut.fleet.scaling.hours import KEPT_H, Hour, LoadHours
from taut.fleet.scaling.tables import hours
from taut.ports.records import Records, Tx, transact

_LOADS: Final = msgspec.json.Decoder(dict[str, float])


class HourStore:
    """The last five weeks of each pool."""

    def __init__(self, records: Records) -> None:
        self._records: Final = records

    def recall(self, pool: str) -> LoadHours:
        """Return what is kept about a pool."""
        with self._records.read() as tx:
            rows = tx.execute(select(hours).where(hours.c.pool == pool).order_by(hours.c.hour)).all()
        kept = (Hour(hour=row.hour, loads=_LOADS.decode(row.loads), replica_s=row.replica_s) for row in rows)
        return LoadHours(tuple(kept))

    def keep(self, pool: str, learned: LoadHours) -> None:
        """Keep the newest hours; again, they take their own places."""
        found = learned.recent()
        if not found:
            return
        rows = [
            {"pool": pool, "hour": one.hour, "loads": canonical_json(one.loads).decode(), "replica_s": one.replica_s}
            for one in found
        ]  # fmt: skip
        over = hours.c.hour.in_([one.hour for one in found]) | (hours.c.hour <= found[-1].hour - KEPT_H)

        def do(tx: Tx) -> None:
            tx.execute(delete(hours).where(hours.c.pool == pool, over))
            tx.execute(insert(hours), rows)

        transact(self._records, do)
