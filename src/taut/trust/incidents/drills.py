"""Faults that drills plant in releases: each for a time, on record from its beginning to its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec
from sqlalchemy import insert, select, update

from taut.core.errors import Conflict
from taut.core.times import to_us
from taut.ports.records import Records, Tx
from taut.ports.world import Clock
from taut.trust.incidents.tables import drills as t
from taut.trust.ledger import Entry, Ledger


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What a release does wrong on purpose. failing: the share of its answers that fail. slow_ms: by which the others are late."""

    failing: float = 0.0
    slow_ms: float = 0.0


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that nobody lifted yet. drill: its id, which is that of its story."""

    drill: str
    name: str
    release: str


class Drills:
    """The register of planted faults.

    Guarantees: a fault is planted and lifted with a leaf about its release; it is over at its time, whether it was lifted or
    not, as soon as control composes what is served anew.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock

    def plant(
        self,
        tx: Tx,
        id: str,
        *,
        name: str,
        endpoint: str,
        release: str,
        fault: Fault,
        lasts: timedelta,
        actor: str,
    ) -> int:
        """Plant a fault in a release and return when, in microseconds. Raises Conflict while another is planted at the endpoint."""
        now = self._clock.now()
        there = select(t.c.id).where(t.c.endpoint == endpoint, t.c.over.is_(False), t.c.until_us > to_us(now))
        other = tx.execute(there).scalar()
        if other is not None:
            raise Conflict(f"drill {other} is under way at {endpoint}: wait for its end")
        row = {
            "id": id, "name": name, "endpoint": endpoint, "release": release, "failing": fault.failing,
            "slow_ms": fault.slow_ms, "planted_us": to_us(now), "until_us": to_us(now + lasts), "over": False,
        }  # fmt: skip
        tx.execute(insert(t).values(row))
        told = {key: row[key] for key in ("name", "endpoint", "failing", "slow_ms", "until_us")}
        self._ledger.append(tx, Entry("drill.planted", f"release:{release}", actor, {**told, "drill": id}))
        return to_us(now)

    def lift(self, tx: Tx, id: str, *, actor: str) -> None:
        """End a fault; one that was never planted, or is over, stays as it is."""
        row = tx.execute(select(t).where(t.c.id == id, t.c.over.is_(False))).first()
        if row is None:
            return
        tx.execute(update(t).where(t.c.id == id).values(over=True))
        self._ledger.append(
            tx, Entry("drill.lifted", f"release:{row.release}", actor, {"name": row.name, "drill": id})
        )

    def faults(self) -> dict[str, Fault]:
        """Return what is planted now, by release."""
        now_us = to_us(self._clock.now())
        with self._records.read() as tx:
            rows = tx.execute(select(t).where(t.c.over.is_(False), t.c.until_us > now_us)).all()
        return {row.release: Fault(failing=row.failing, slow_ms=row.slow_ms) for row in rows}

    def planted(self) -> tuple[Planted, ...]:
        """Return what was planted and never lifted, though its time may be over."""
        with self._records.read() as tx:
            rows = tx.execute(select(t).where(t.c.over.is_(False)).order_by(t.c.id)).all()
        return tuple(Planted(drill=row.id, name=row.name, release=row.release) for row in rows)

    def was_in(self, release: str) -> bool:
        """Whether a fault was ever planted in a release."""
        with self._records.read() as tx:
            return tx.execute(select(t.c.id).where(t.c.release == release).limit(1)).first() is not None
