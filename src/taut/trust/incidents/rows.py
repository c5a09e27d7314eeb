"""Reads of the tables of incidents, and what they return."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select

from taut.core.errors import NotFound
from taut.core.times import from_us
from taut.ports.records import Tx
from taut.trust.incidents.tables import incidents, joined
from taut.trust.incidents.values import Incident, Joined


def get(tx: Tx, id_: str) -> Incident:
    """Return an incident. Raises NotFound."""
    row = tx.execute(select(incidents).where(incidents.c.id == id_)).first()
    if row is None:
        raise NotFound(f"no incident {id_[:80]!r}: list them with `taut incident list --all`")
    return incident(row)


def alerts(tx: Tx, id_: str) -> tuple[Joined, ...]:
    """Return the alerts of an incident in the order in which they joined."""
    query = select(joined).where(joined.c.incident == id_).order_by(joined.c.joined_us, joined.c.alert)
    return tuple(
        Joined(
            alert=row.alert, kind=row.kind, resource=row.resource, principal=row.principal, severity=row.severity,
            joined_at=from_us(row.joined_us), over=row.over,
        )
        for row in tx.execute(query)
    )  # fmt: skip


def incident(row: Row[Any]) -> Incident:
    return Incident(
        id=row.id, title=row.title, severity=row.severity, status=row.status, owner=row.owner, resource=row.resource,
        principal=row.principal, opened_at=from_us(row.opened_us), opened_by=row.opened_by, heard_at=from_us(row.heard_us),
        times=row.times, ended_at=None if row.ended_us is None else from_us(row.ended_us), ended_by=row.ended_by,
        reason=row.reason,
    )  # fmt: skip
