"""Keeps what was counted, with how far the counters were read, so that a control that starts anew counts nothing twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import and_, delete, insert, or_, select

from taut.core.times import to_us
from taut.lifecycle.objectives.tables import counts, progress
from taut.lifecycle.objectives.tally import FINE_S, HOUR_S, MINUTE_S, Slot, Tally, oldest_slot
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock

Place = tuple[str, str]
"""An endpoint and a measure."""
KEEP_S: Final = 90 * 86_400.0
_READ: Final = "gateways"


class Kept:
    """Counts in their table. Minutes are kept for six hours, hours for 90 days."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records: Final = records
        self._clock: Final = clock

    def tally(self, place: Place, keep_s: float) -> Tally:
        """Return what was counted of a measure, as far as `keep_s` goes back."""
        now_s = self._clock.now().timestamp()
        query = select(counts).where(
            counts.c.endpoint == place[0],
            counts.c.measure == place[1],
            or_(
                and_(counts.c.span_s == MINUTE_S, counts.c.at >= oldest_slot(MINUTE_S, now_s, FINE_S)),
                and_(counts.c.span_s == HOUR_S, counts.c.at >= oldest_slot(HOUR_S, now_s, keep_s)),
            ),
        )
        with self._records.read() as tx:
            return Tally(keep_s, (Slot(row.span_s, row.at, row.bad, row.total) for row in tx.execute(query)))

    def progress(self) -> tuple[bytes, float] | None:
        """Return the counters as they were read last, and when that was; None where nothing ever was."""
        with self._records.read() as tx:
            row = tx.execute(select(progress).where(progress.c.name == _READ)).first()
        return None if row is None else (row.body, row.at_us / 1e6)

    def keep(self, changed: Mapping[Place, Iterable[Slot]], body: bytes) -> None:
        """Keep the slots that changed and how far the counters were read for them, in one transaction; forget what is too old."""
        now = self._clock.now()
        rows = [
            {"endpoint": endpoint, "measure": measure, **slot._asdict()}
            for (endpoint, measure), slots in changed.items()
            for slot in slots
        ]

        def do(tx: Tx) -> None:
            for row in rows:
                same = (counts.c[name] == row[name] for name in ("endpoint", "measure", "span_s", "at"))
                tx.execute(delete(counts).where(*same))
            if rows:
                tx.execute(insert(counts), rows)
            for span_s, keep_s in ((MINUTE_S, FINE_S), (HOUR_S, KEEP_S)):
                oldest = oldest_slot(span_s, now.timestamp(), keep_s)
                tx.execute(delete(counts).where(counts.c.span_s == span_s, counts.c.at < oldest))
            tx.execute(delete(progress).where(progress.c.name == _READ))
            tx.execute(insert(progress).values(name=_READ, body=body, at_us=to_us(now)))

        transact(self._records, do)
