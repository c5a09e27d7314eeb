"""Incidents in their table: opened by grave alerts and by people; alerts that belong to one join it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, insert, or_, select, update

from taut.core.errors import Conflict, InvalidInput
from taut.core.times import to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.findings import SEVERITIES, Change, Finding, Severity, at_least
from taut.trust.identity import OWNER
from taut.trust.identity.rows import get_principal
from taut.trust.incidents import rows
from taut.trust.incidents.acts import Acts
from taut.trust.incidents.tables import incidents as t
from taut.trust.incidents.tables import joined as j
from taut.trust.incidents.values import Incident, Joined, Status
from taut.trust.ledger import Entry, Ledger

WINDOW: Final = timedelta(hours=1)
RECURS: Final = timedelta(days=7)
_PLATFORM: Final = "control"
_EVERYWHERE: Final = "endpoint:any"
"""What an alert about a caller is about that concerns no single endpoint: nothing that two alerts have in common."""

_MAX_TITLE: Final = 200
_MAX_SAID: Final = 4000
_ATTEMPTS: Final = 32


class Incidents:
    """The register of incidents.

    An alert joins the incident that has an alert about the same resource or principal, while one of its alerts is open or
    something of it was seen within `window`. The same alert within `recurs` of a resolution opens that incident again.

    Guarantees: an incident changes with the alert that changes it, or neither does; each change is a leaf of the ledger
    about `incident:ID`, with titles, notes and reasons in its details, which can be erased; a person alone resolves one. Not guaranteed: that alerts that belong together have a resource or a
    principal in common, and so that they are found to.
    """

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        clock: Clock,
        ids: Ids,
        *,
        window: timedelta = WINDOW,
        recurs: timedelta = RECURS,
    ) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids
        self._window: Final = window
        self._recurs: Final = recurs
        self.acts: Final = Acts(ledger, clock)

    def hear(self, tx: Tx, finding: Finding, change: Change, *, opens: bool) -> Incident | None:
        """Take what became of an alert; return the incident that it belongs to, None where there is none.

        opens: whether it opens one, where it belongs to none that there is.
        """
        own = self._own(tx, finding)
        if change == "ended":
            return None if own is None else self._end_alert(tx, own, finding)
        if own is None:
            own = self._akin(tx, finding) or (self._again(tx, finding) if opens else None)
            if own is None and not opens:
                return None
            own = own or self._begin_by(tx, finding)
            self._join(tx, own, finding)
        if finding.severity != "info" and own.status != "open":
            own = self._reopen(tx, own, finding)
        return self._renew(tx, own, finding.severity)

    def open(
        self, title: str, *, severity: str, resource: str = "", principal: str = "", actor: str
    ) -> Incident:
        """Open an incident that a person saw. resource: such as `endpoint:delay`. Raises InvalidInput."""
        said = _words(title, "a title", _MAX_TITLE)
        row = self._row(
            said, check_severity(severity), _words(resource, "a resource", 200) if resource else "", principal
        )

        def do(tx: Tx) -> Incident:
            if principal:
                get_principal(tx, principal)
            return self._insert(tx, row, actor, {})

        return self._do(do)

    def note(self, id: str, text: str, *, actor: str) -> Incident:
        """Put words of a person into the timeline; they can be erased, the leaf that holds them cannot."""
        said = _words(text, "a note", _MAX_SAID)

        def do(tx: Tx) -> Incident:
            found = rows.get(tx, id)
            self._leaf(tx, "incident.noted", id, actor, {}, {"text": said})
            return found

        return self._do(do)

    def assign(self, id: str, owner: str, *, actor: str) -> Incident:
        """Say who answers for an incident. Raises NotFound for a principal who is not there, Conflict where it is resolved."""

        def do(tx: Tx) -> Incident:
            self._unresolved(tx, id)
            if owner != OWNER.id:
                get_principal(tx, owner)
            self._leaf(tx, "incident.assigned", id, actor, {"owner": owner})
            return self._set(tx, id, owner=owner)

        return self._do(do)

    def grade(self, id: str, severity: str, *, actor: str, reason: str) -> Incident:
        """Say how grave an incident is; a graver alert raises it again. Raises Conflict where it is resolved."""
        graver, said = check_severity(severity), _words(reason, "a reason", _MAX_SAID)

        def do(tx: Tx) -> Incident:
            self._unresolved(tx, id)
            self._leaf(tx, "incident.graded", id, actor, {"severity": graver}, {"text": said})
            return self._set(tx, id, severity=graver)

        return self._do(do)

    def mitigate(self, id: str, reason: str, *, actor: str) -> Incident:
        """Say that it hurts no longer. Raises Conflict where it is mitigated or resolved already."""
        return self._say_over(id, "mitigated", reason, actor)

    def resolve(self, id: str, reason: str, *, actor: str) -> Incident:
        """Say that it is over, and why. Raises Conflict where it is resolved already."""
        return self._say_over(id, "resolved", reason, actor)

    def get(self, id: str) -> Incident:
        """Return an incident. Raises NotFound."""
        with self._records.read() as tx:
            return rows.get(tx, id)

    def get_in(self, tx: Tx, id: str) -> Incident:
        """As `get`, as `tx` sees it."""
        return rows.get(tx, id)

    def list(self, *, all: bool = False, limit: int = 100) -> tuple[Incident, ...]:
        """Return incidents that are not resolved, the newest first. all: the resolved ones too."""
        query = select(t).order_by(t.c.opened_us.desc(), t.c.id.desc()).limit(limit)
        if not all:
            query = query.where(t.c.status != "resolved")
        with self._records.read() as tx:
            return tuple(rows.incident(row) for row in tx.execute(query))

    def alerts(self, id: str) -> tuple[Joined, ...]:
        """Return the alerts of an incident in the order in which they joined."""
        with self._records.read() as tx:
            return rows.alerts(tx, id)

    def of_alerts(self, alerts: Sequence[str]) -> tuple[Incident, ...]:
        """Return the incidents that alerts belong to."""
        query = select(t).where(t.c.id.in_(select(j.c.incident).where(j.c.alert.in_(tuple(alerts)))))
        with self._records.read() as tx:
            return tuple(rows.incident(row) for row in tx.execute(query.order_by(t.c.id)))

    # How alerts find their incident

    def _own(self, tx: Tx, finding: Finding) -> Incident | None:
        query = select(t).join(j, j.c.incident == t.c.id).where(j.c.alert == finding.id)
        row = tx.execute(query.order_by(t.c.opened_us.desc()).limit(1)).first()
        return None if row is None else rows.incident(row)

    def _akin(self, tx: Tx, finding: Finding) -> Incident | None:
        """Return the incident of the same resource or principal of which something was seen lately, the latest first."""
        same = []
        if finding.resource != _EVERYWHERE:
            same += [t.c.resource == finding.resource, j.c.resource == finding.resource]
        if finding.principal:
            same += [t.c.principal == finding.principal, j.c.principal == finding.principal]
        if not same:
            return None
        open_alerts = select(j.c.incident).where(j.c.over.is_(False))
        lately = or_(t.c.heard_us >= self._ago(self._window), t.c.id.in_(open_alerts))
        query = select(t).outerjoin(j, j.c.incident == t.c.id)
        query = query.where(t.c.status != "resolved", or_(*same), lately)
        row = tx.execute(query.order_by(t.c.heard_us.desc(), t.c.id.desc()).limit(1)).first()
        return None if row is None else rows.incident(row)

    def _again(self, tx: Tx, finding: Finding) -> Incident | None:
        """Return the incident that was resolved lately and had an alert of this kind about the same."""
        same = and_(
            j.c.kind == finding.kind, j.c.resource == finding.resource, j.c.principal == finding.principal
        )
        query = select(t).join(j, j.c.incident == t.c.id)
        query = query.where(same, t.c.status == "resolved", t.c.ended_us >= self._ago(self._recurs))
        row = tx.execute(query.order_by(t.c.ended_us.desc(), t.c.id.desc()).limit(1)).first()
        return None if row is None else rows.incident(row)

    # What becomes of one

    def _begin_by(self, tx: Tx, finding: Finding) -> Incident:
        title = (finding.summary or f"{finding.kind} at {finding.resource}")[:_MAX_TITLE]
        row = self._row(title, finding.severity, finding.resource, finding.principal)
        return self._insert(tx, row, _PLATFORM, {"alert": finding.id, "kind": finding.kind})

    def _row(self, title: str, severity: Severity, resource: str, principal: str) -> dict[str, Any]:
        now_us = to_us(self._clock.now())
        return {
            "id": self._ids.new("incident"), "title": title, "severity": severity, "status": "open", "owner": "",
            "resource": resource, "principal": principal, "opened_us": now_us, "heard_us": now_us, "ended_us": None,
            "ended_by": None, "reason": "", "times": 1,
        }  # fmt: skip

    def _insert(self, tx: Tx, row: dict[str, Any], actor: str, body: dict[str, object]) -> Incident:
        tx.execute(insert(t).values({**row, "opened_by": actor}))
        told = {name: row[name] for name in ("severity", "resource", "principal")}
        self._leaf(tx, "incident.opened", row["id"], actor, {**body, **told}, {"title": row["title"]})
        return rows.get(tx, row["id"])

    def _join(self, tx: Tx, incident: Incident, finding: Finding) -> None:
        tx.execute(
            insert(j).values(
                incident=incident.id, alert=finding.id, kind=finding.kind, resource=finding.resource,
                principal=finding.principal, severity=finding.severity, joined_us=to_us(self._clock.now()), over=False,
            )
        )  # fmt: skip
        told: dict[str, object] = {"alert": finding.id, "kind": finding.kind, "severity": finding.severity}
        self._leaf(tx, "incident.joined", incident.id, _PLATFORM, told)

    def _reopen(self, tx: Tx, incident: Incident, finding: Finding) -> Incident:
        came_back = incident.status == "resolved"
        told: dict[str, object] = {"alert": finding.id, "kind": finding.kind, "was": incident.status}
        self._leaf(tx, "incident.reopened", incident.id, _PLATFORM, told)
        return self._set(
            tx, incident.id, status="open", ended_us=None, ended_by=None, reason="",
            times=incident.times + came_back, **({"owner": ""} if came_back else {}),
        )  # fmt: skip

    def _renew(self, tx: Tx, incident: Incident, severity: Severity) -> Incident:
        fields: dict[str, object] = {"heard_us": to_us(self._clock.now())}
        if not at_least(incident.severity, severity):
            fields["severity"] = severity
            self._leaf(tx, "incident.raised", incident.id, _PLATFORM, {"severity": severity})
        return self._set(tx, incident.id, **fields)

    def _end_alert(self, tx: Tx, incident: Incident, finding: Finding) -> Incident:
        mine = and_(j.c.incident == incident.id, j.c.alert == finding.id)
        tx.execute(update(j).where(mine).values(over=True))
        still = select(j.c.alert).where(j.c.incident == incident.id, j.c.over.is_(False)).limit(1)
        if incident.status != "open" or tx.execute(still).first() is not None:
            return incident
        why = f"its last alert {finding.id} was {finding.state}: {finding.reason}"[:500]
        return self._over(tx, incident, "mitigated", why, _PLATFORM)

    def _say_over(self, id: str, status: Status, reason: str, actor: str) -> Incident:
        said = _words(reason, "a reason", _MAX_SAID)

        def do(tx: Tx) -> Incident:
            found = rows.get(tx, id)
            if found.status in (status, "resolved"):
                raise Conflict(f"incident {id} is {found.status} already, by {found.ended_by}")
            return self._over(tx, found, status, said, actor)

        return self._do(do)

    def _over(self, tx: Tx, incident: Incident, status: Status, why: str, actor: str) -> Incident:
        kind = "incident.mitigated" if status == "mitigated" else "incident.resolved"
        self._leaf(tx, kind, incident.id, actor, {}, {"reason": why})
        now_us = to_us(self._clock.now())
        return self._set(tx, incident.id, status=status, ended_us=now_us, ended_by=actor, reason=why)

    def _unresolved(self, tx: Tx, id: str) -> None:
        if rows.get(tx, id).status == "resolved":
            raise Conflict(f"incident {id} is resolved: open another one, or write a note")

    def _set(self, tx: Tx, id: str, **fields: object) -> Incident:
        tx.execute(update(t).where(t.c.id == id).values(**fields))
        return rows.get(tx, id)

    def _leaf(
        self,
        tx: Tx,
        kind: str,
        id: str,
        actor: str,
        body: dict[str, object],
        details: dict[str, str] | None = None,
    ) -> None:
        self._ledger.append(tx, Entry(kind, f"incident:{id}", actor, body, details))

    def _do(self, do: Callable[[Tx], Incident]) -> Incident:
        return transact(self._records, do, attempts=_ATTEMPTS)

    def _ago(self, span: timedelta) -> int:
        at: datetime = self._clock.now() - span
        return to_us(at)


def check_severity(text: str) -> Severity:
    """Return a severity by its word. Raises InvalidInput."""
    found = next((one for one in SEVERITIES if one == text), None)
    if found is None:
        raise InvalidInput(f"severity {text[:40]!r} is unknown: use {', '.join(SEVERITIES)}")
    return found


def _words(text: str, what: str, most: int) -> str:
    said = " ".join(text.split())
    if not said or len(said) > most or not said.isprintable():
        raise InvalidInput(f"an incident needs {what} of 1 to {most} printable characters: say what you saw")
    return said
