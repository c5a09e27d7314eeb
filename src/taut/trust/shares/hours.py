"""Keeps what whole hours taught, so that a detector that starts anew knows what was usual."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import delete, insert, select

from taut.core.canonical import canonical_json
from taut.ports.records import Records, Tx, transact
from taut.trust.shares.tables import hours
from taut.trust.shares.watch import Hour, ShareWatch

_KEPT: Final = 5 * 168
_COUNTS: Final = msgspec.json.Decoder(dict[str, float])
_BINS: Final = msgspec.json.Decoder(dict[str, tuple[int, ...]])


class Hours:
    """The last five weeks. What a control did not live to the end of is not kept: an hour at most."""

    def __init__(self, records: Records) -> None:
        self._records: Final = records

    def recall(self, watch: ShareWatch) -> None:
        """Teach a new detector what is kept."""
        with self._records.read() as tx:
            rows = tx.execute(select(hours).order_by(hours.c.hour)).all()
        for row in rows:
            watch.recall(
                Hour(hour=row.hour, known=_COUNTS.decode(row.known), strangers=_COUNTS.decode(row.strangers))
            )
        if rows:
            watch.margins.recall(_BINS.decode(rows[-1].margins))

    def keep(self, hour: Hour, watch: ShareWatch) -> None:
        """Keep an hour; again, it takes the former's place."""
        row = {
            "hour": hour.hour, "known": canonical_json(hour.known).decode(),
            "strangers": canonical_json(hour.strangers).decode(), "margins": canonical_json(watch.margins.seen()).decode(),
        }  # fmt: skip

        def do(tx: Tx) -> None:
            tx.execute(delete(hours).where((hours.c.hour == hour.hour) | (hours.c.hour <= hour.hour - _KEPT)))
            tx.execute(insert(hours).values(row))

        transact(self._records, do)
