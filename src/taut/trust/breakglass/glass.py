"""Begins and ends emergencies; each is a leaf of the ledger, and so is each act in one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, select, update

from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.breakglass.tables import glasses
from taut.trust.identity.principals import OWNER, Principal
from taut.trust.ledger import Entry, Ledger

MAX_TTL: Final = timedelta(hours=8)
_MIN_TTL: Final = timedelta(minutes=1)
_MAX_REASON: Final = 500
_MARK: Final = "break-glass:"


class Glass(msgspec.Struct, frozen=True, kw_only=True):
    """One emergency: why, since when, and until when at the latest."""

    id: str
    reason: str
    begun_by: str
    begun_at: datetime
    until: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None


def emergency(name: str) -> Principal:
    """Return the owner of the files as he acts in an emergency. name: its id, or a word for one command's."""
    return msgspec.structs.replace(OWNER, credential=f"{_MARK}{name}")


def is_emergency(principal: Principal) -> bool:
    """Whether somebody acts in an emergency. Only this process makes such a principal: no token names an owner."""
    return principal.kind == OWNER.kind and principal.credential.startswith(_MARK)


class BreakGlass:
    """The register of emergencies.

    Guarantees: at most one holds at a time, none longer than 8 hours; its row and its leaf commit together.
    Not guaranteed: that anybody looks; the platform says it in its log, its status, its figures and to every command
    while it lasts.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock, ids: Ids) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids

    def begin(self, reason: str, ttl: timedelta, *, actor: str) -> Glass:
        """Begin an emergency. ttl: 1 minute to 8 hours.

        Raises InvalidInput without a reason or for another time, Conflict while one holds.
        """
        said = " ".join(reason.split())
        if not said or len(said) > _MAX_REASON or not said.isprintable():
            raise InvalidInput(
                f"an emergency needs a reason of 1 to {_MAX_REASON} printable characters: say why"
            )
        if not _MIN_TTL <= ttl <= MAX_TTL:
            raise InvalidInput(
                f"an emergency cannot last {ttl}: give 1m to 8h, and begin another one after it"
            )

        def do(tx: Tx) -> Glass:
            now = self._clock.now()
            found = holding(tx, now)
            if found is not None:
                raise Conflict(
                    f"an emergency holds already, until {found.until:%Y-%m-%d %H:%M:%S} UTC ({found.reason}): act, or end "
                    "it with `taut break-glass end`"
                )
            row = {
                "id": self._ids.new("glass"), "reason": said, "begun_by": actor, "begun_us": to_us(now),
                "until_us": to_us(now + ttl), "ended_us": None, "ended_by": None,
            }  # fmt: skip
            tx.execute(insert(glasses).values(row))
            body = {"reason": said, "until_us": row["until_us"]}
            self._ledger.append(tx, Entry("break_glass.begun", str(row["id"]), actor, body))
            return _find(tx, str(row["id"]))

        return transact(self._records, do)

    def end(self, *, actor: str) -> Glass:
        """End the emergency that holds. Raises NotFound where none does."""

        def do(tx: Tx) -> Glass:
            now = self._clock.now()
            found = holding(tx, now)
            if found is None:
                raise NotFound("no emergency holds: there is nothing to end")
            change = update(glasses).where(glasses.c.id == found.id)
            tx.execute(change.values(ended_us=to_us(now), ended_by=actor))
            self._ledger.append(tx, Entry("break_glass.ended", found.id, actor))
            return _find(tx, found.id)

        return transact(self._records, do)

    def holding(self) -> Glass | None:
        """Return the emergency that holds now, if any."""
        with self._records.read() as tx:
            return holding(tx, self._clock.now())

    def history(self, *, limit: int = 20) -> tuple[Glass, ...]:
        """Return emergencies, the newest first."""
        query = select(glasses).order_by(glasses.c.begun_us.desc(), glasses.c.id.desc()).limit(limit)
        with self._records.read() as tx:
            return tuple(_glass(row) for row in tx.execute(query))

    def note(self, principal: Principal, operation: str, resource: str) -> None:
        """Leave a leaf about an act in an emergency, before it is done."""
        entry = Entry(
            "break_glass.act", resource, principal.id, {"operation": operation, "as": principal.credential}
        )
        transact(self._records, lambda tx: self._ledger.append(tx, entry))


def holding(tx: Tx, now: datetime) -> Glass | None:
    """Return the emergency that holds at a moment, if any."""
    query = select(glasses).where(glasses.c.ended_us.is_(None), glasses.c.until_us > to_us(now)).limit(1)
    row = tx.execute(query).first()
    return None if row is None else _glass(row)


def _find(tx: Tx, id_: str) -> Glass:
    return _glass(tx.execute(select(glasses).where(glasses.c.id == id_)).one())


def _glass(row: Row[Any]) -> Glass:
    return Glass(
        id=row.id, reason=row.reason, begun_by=row.begun_by, begun_at=from_us(row.begun_us),
        until=from_us(row.until_us), ended_at=None if row.ended_us is None else from_us(row.ended_us),
        ended_by=row.ended_by,
    )  # fmt: skip
