"""Keeps what was usual and what was seen, so that a control that starts anew goes on where the last one was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from sqlalchemy import delete, insert, select

from taut.core.canonical import canonical_json
from taut.core.times import to_us
from taut.lifecycle.monitoring.reference import Reference
from taut.lifecycle.monitoring.tables import progress, references, watches
from taut.lifecycle.monitoring.watch import EndpointWatch, Tolerance
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock

Place = tuple[str, str]
"""An endpoint and a version that answers at it."""
_LOG: Final = "log"
_POSITIONS: Final = msgspec.json.Decoder(dict[str, int])


def _nothing(_tx: Tx) -> None:
    """Nothing else was learned."""


class Kept:
    """References and watches in their tables. A reference is written once and stays as it was frozen."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records: Final = records
        self._clock: Final = clock

    def reference(self, version: str) -> Reference | None:
        """Return what was frozen of a version; None where nothing was."""
        with self._records.read() as tx:
            body = tx.execute(select(references.c.body).where(references.c.version == version)).scalar()
        return None if body is None else msgspec.msgpack.decode(body, type=Reference)

    def freeze(self, reference: Reference) -> Reference:
        """Keep a reference and return the one that is kept: the first of its version."""
        row = {
            "version": reference.version,
            "body": msgspec.msgpack.encode(reference),
            "made_us": self._now_us(),
        }

        def do(tx: Tx) -> None:
            known = select(references.c.version).where(references.c.version == reference.version)
            if tx.execute(known).first() is None:
                tx.execute(insert(references).values(row))

        transact(self._records, do)
        return self.reference(reference.version) or reference

    def positions(self) -> dict[str, int] | None:
        """Return how far each segment of the log was read; None where nothing ever was."""
        with self._records.read() as tx:
            body = tx.execute(select(progress.c.body).where(progress.c.name == _LOG)).scalar()
        return None if body is None else _POSITIONS.decode(body)

    def resume(self, place: Place, reference: Reference, tolerance: Tolerance, *, seed: int) -> EndpointWatch:
        """Return a watch that goes on where the one that was kept was; a new one where none of this tolerance was."""
        watch = EndpointWatch(reference, tolerance, seed=seed)
        query = select(watches.c.body).where(
            watches.c.endpoint == place[0],
            watches.c.version == place[1],
            watches.c.tolerance == canonical_json(tolerance).decode(),
        )
        with self._records.read() as tx:
            body = tx.execute(query).scalar()
        if body is not None:
            watch.resume(body)
        return watch

    def places(self) -> tuple[Place, ...]:
        """Return what is kept, in order."""
        query = select(watches.c.endpoint, watches.c.version).order_by(watches.c.endpoint, watches.c.version)
        with self._records.read() as tx:
            return tuple((row.endpoint, row.version) for row in tx.execute(query))

    def keep(
        self,
        changed: Mapping[Place, EndpointWatch],
        positions: Mapping[str, int],
        also: Callable[[Tx], None] = _nothing,
    ) -> None:
        """Keep watches and how far the log was read for them, together: whoever resumes reads no record twice, and misses none.

        also: what else was learned from those records, in the same transaction.
        """
        rows = [
            {
                "endpoint": endpoint, "version": version, "tolerance": canonical_json(watch.tolerance).decode(),
                "body": watch.state(), "at_us": self._now_us(),
            }
            for (endpoint, version), watch in changed.items()
        ]  # fmt: skip

        def do(tx: Tx) -> None:
            also(tx)
            for row in rows:
                same = (watches.c.endpoint == row["endpoint"]) & (watches.c.version == row["version"])
                tx.execute(delete(watches).where(same))
                tx.execute(insert(watches).values(row))
            tx.execute(delete(progress).where(progress.c.name == _LOG))
            tx.execute(insert(progress).values(name=_LOG, body=msgspec.json.encode(dict(positions)).decode()))

        transact(self._records, do)

    def forget(self, place: Place) -> None:
        """Forget a watch; its reference stays."""

        def do(tx: Tx) -> None:
            tx.execute(
                delete(watches).where((watches.c.endpoint == place[0]) & (watches.c.version == place[1]))
            )

        transact(self._records, do)

    def _now_us(self) -> int:
        return to_us(self._clock.now())
