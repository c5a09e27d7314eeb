"""Findings in their table; each begins and ends with a leaf of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Row, insert, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.evidence import Scalar
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.findings.tables import findings as t
from taut.trust.ledger import Entry, Ledger

State = Literal["open", "dismissed", "lapsed"]
Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
"""From what is good to know to what somebody must look at now."""
QUIET: Final = timedelta(days=7)
_MAX_REASON: Final = 500


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch saw now: of one principal, or of a group of them, at a resource.

    kind: what is held against them, in the watch's own words, such as `abuse.inversion`. score: how strong the evidence is,
    in the watch's own measure; larger is stronger. evidence: the numbers by which a person can judge it. summary, closes: in
    words, what was seen, and what would have to be so that it is over.
    """

    kind: str
    resource: str
    score: float
    principal: str = ""
    group: str = ""
    evidence: dict[str, Scalar] = {}
    severity: Severity = "warning"
    summary: str = ""
    closes: str = ""

    @property
    def about(self) -> tuple[str, str, str, str]:
        """Return what makes two sightings one finding."""
        return self.kind, self.principal, self.group, self.resource


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing held against a principal or a group, from its first sight on.

    since, seen: when it was seen first and last. score, severity: the highest that it had. evidence, summary: of the last sight. state: `open`;
    `dismissed`, a person said that it is right; `lapsed`, it was not seen any more for a time.
    """

    id: str
    kind: str
    principal: str
    group: str
    resource: str
    score: float
    evidence: dict[str, Scalar]
    severity: Severity
    summary: str
    closes: str
    since: datetime
    seen: datetime
    state: State
    ended_at: datetime | None = None
    ended_by: str | None = None
    reason: str = ""


Change = Literal["opened", "raised", "ended"]
"""raised: its severity rose."""

Hear = Callable[[Tx, Finding, Change], None]
"""Told of each change inside its transaction, so that what follows from it commits with it, or neither does."""


def at_least(severity: Severity, least: Severity) -> bool:
    """Whether a severity is as grave as another one.

    >>> at_least("critical", "warning"), at_least("info", "warning")
    (True, False)
    """
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def _nobody(_tx: Tx, _finding: Finding, _change: Change) -> None:
    """Hears nothing."""


class Findings:
    """The register of findings.

    hear: what follows from a change, such as telling people.

    Guarantees: at most one open finding of a kind about the same principal or group at the same resource; its beginning and
    its end commit with their leaves; what a person dismissed is not held against the same one again for `quiet`.
    Not guaranteed: that anybody acts on one; it is a signal, and refuses nothing by itself.
    """

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        clock: Clock,
        ids: Ids,
        *,
        quiet: timedelta = QUIET,
        hear: Hear = _nobody,
    ) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._ids: Final = ids
        self._quiet: Final = quiet
        self._hear: Final = hear

    def report(self, sightings: Sequence[Sighting]) -> tuple[Finding, ...]:
        """Open a finding for each sighting, or renew the one that is open; return those that are open after it.

        Raises InvalidInput for a sighting of nobody.
        """
        _check(sightings)
        if not sightings:
            return ()
        return transact(self._records, lambda tx: self._take_all(tx, sightings))

    def report_in(self, tx: Tx, sightings: Sequence[Sighting]) -> tuple[Finding, ...]:
        """As `report`, if and only if `tx` commits."""
        _check(sightings)
        return self._take_all(tx, sightings)

    def observe(self, kinds: Sequence[str], sightings: Sequence[Sighting]) -> tuple[Finding, ...]:
        """As `report`, for a watch that saw everything there is of these kinds: what it did not see lapses at once."""
        _check(sightings)
        about = {one.about for one in sightings}

        def do(tx: Tx) -> tuple[Finding, ...]:
            query = select(t).where(t.c.state == "open", t.c.kind.in_(tuple(kinds))).order_by(t.c.id)
            for row in tx.execute(query).all():
                if (row.kind, row.principal, row.group, row.resource) not in about:
                    self._end(tx, row.id, "lapsed", "watch", "not seen any more")
            return self._take_all(tx, sightings)

        return transact(self._records, do)

    def _take_all(self, tx: Tx, sightings: Sequence[Sighting]) -> tuple[Finding, ...]:
        found = (self._take(tx, one) for one in sightings)
        return tuple(one for one in found if one is not None)

    def lapse(self, kinds: Sequence[str], *, unseen_for: timedelta) -> tuple[Finding, ...]:
        """End what of these kinds was not seen for so long, and return it."""

        def do(tx: Tx) -> tuple[Finding, ...]:
            before_us = to_us(self._clock.now() - unseen_for)
            query = select(t.c.id).where(t.c.state == "open", t.c.seen_us < before_us, t.c.kind.in_(kinds))
            gone = tx.execute(query.order_by(t.c.id)).scalars().all()
            return tuple(self._end(tx, id_, "lapsed", "watch", "not seen any more") for id_ in gone)

        return transact(self._records, do)

    def dismiss(self, id_: str, reason: str, *, actor: str) -> Finding:
        """Say that what was found is right, and why. Raises NotFound, Conflict where it has ended, InvalidInput without a reason."""
        said = " ".join(reason.split())
        if not said or len(said) > _MAX_REASON or not said.isprintable():
            raise InvalidInput(
                f"a finding is dismissed for a reason of 1 to {_MAX_REASON} printable characters: say why it is right"
            )

        def do(tx: Tx) -> Finding:
            found = _get(tx, id_)
            if found.state != "open":
                raise Conflict(f"finding {id_} is {found.state} already: there is nothing to dismiss")
            return self._end(tx, id_, "dismissed", actor, said)

        return transact(self._records, do)

    def get(self, id_: str) -> Finding:
        """Return a finding. Raises NotFound."""
        with self._records.read() as tx:
            return _get(tx, id_)

    def list(self, *, state: State | None = None, limit: int = 100) -> tuple[Finding, ...]:
        """Return findings, the newest first. state: only those."""
        query = select(t).order_by(t.c.since_us.desc(), t.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(t.c.state == state)
        with self._records.read() as tx:
            return tuple(_finding(row) for row in tx.execute(query))

    def since(self, tx: Tx, at: datetime, *, limit: int = 1000) -> tuple[Finding, ...]:
        """Return what was opened since then, the newest first, as `tx` sees it."""
        query = select(t).where(t.c.since_us >= to_us(at)).order_by(t.c.since_us.desc(), t.c.id.desc())
        return tuple(_finding(row) for row in tx.execute(query.limit(limit)))

    def principals(self, kind: str) -> tuple[tuple[str, str], ...]:
        """Return (resource, principal) of open findings whose kind begins so, in order; cheap, and asked often."""
        query = select(t.c.resource, t.c.principal).distinct().where(t.c.state == "open", t.c.principal != "")
        query = query.where(t.c.kind.startswith(kind, autoescape=True))
        with self._records.read() as tx:
            return tuple(
                (row.resource, row.principal)
                for row in tx.execute(query.order_by(t.c.resource, t.c.principal))
            )

    def _take(self, tx: Tx, one: Sighting) -> Finding | None:
        now = self._clock.now()
        now_us = to_us(now)
        same = (t.c.kind == one.kind, t.c.principal == one.principal, t.c.group == one.group)
        query = select(t).where(*same, t.c.resource == one.resource, t.c.state != "lapsed")
        last = tx.execute(query.order_by(t.c.since_us.desc(), t.c.id.desc()).limit(1)).first()
        if last is not None and last.state == "dismissed":
            if last.ended_us > to_us(now - self._quiet):
                return None
            last = None
        evidence = canonical_json(one.evidence).decode()
        if last is not None:
            graver = not at_least(last.severity, one.severity)
            fresh: dict[str, object] = {
                "seen_us": now_us, "score": max(last.score, one.score), "evidence": evidence, "summary": one.summary,
                "closes": one.closes, "severity": one.severity if graver else last.severity,
            }  # fmt: skip
            tx.execute(update(t).where(t.c.id == last.id).values(**fresh))
            renewed = _get(tx, last.id)
            if graver:
                risen = {"severity": one.severity, "score": one.score, "evidence": one.evidence}
                self._ledger.append(tx, Entry("finding.raised", f"finding:{last.id}", "control", risen))
                self._hear(tx, renewed, "raised")
            return renewed
        id_ = self._ids.new("finding")
        row = {
            "id": id_, "kind": one.kind, "principal": one.principal, "group": one.group, "resource": one.resource,
            "score": one.score, "evidence": evidence, "severity": one.severity, "summary": one.summary,
            "closes": one.closes, "since_us": now_us, "seen_us": now_us, "state": "open",
            "ended_us": None, "ended_by": None, "reason": "",
        }  # fmt: skip
        tx.execute(insert(t).values(row))
        body: dict[str, object] = {
            "kind": one.kind, "principal": one.principal, "group": one.group, "resource": one.resource,
            "score": one.score, "evidence": one.evidence, "severity": one.severity, "summary": one.summary,
        }  # fmt: skip
        self._ledger.append(tx, Entry("finding.opened", f"finding:{id_}", "control", body))
        opened = _get(tx, id_)
        self._hear(tx, opened, "opened")
        return opened

    def _end(self, tx: Tx, id_: str, state: State, actor: str, reason: str) -> Finding:
        ended = {
            "state": state, "ended_us": to_us(self._clock.now()), "ended_by": actor, "reason": reason,
        }  # fmt: skip
        tx.execute(update(t).where(t.c.id == id_).values(**ended))
        self._ledger.append(tx, Entry(f"finding.{state}", f"finding:{id_}", actor, {"reason": reason}))
        over = _get(tx, id_)
        self._hear(tx, over, "ended")
        return over


def _check(sightings: Sequence[Sighting]) -> None:
    for one in sightings:
        if bool(one.principal) == bool(one.group):
            raise InvalidInput(
                f"a sighting of {one.kind} names principal {one.principal!r} and group {one.group!r}: name one of them"
            )


def _get(tx: Tx, id_: str) -> Finding:
    row = tx.execute(select(t).where(t.c.id == id_)).first()
    if row is None:
        raise NotFound(f"no finding {id_[:80]!r}: list the findings and take an id from there")
    return _finding(row)


def _finding(row: Row[Any]) -> Finding:
    return Finding(
        id=row.id, kind=row.kind, principal=row.principal, group=row.group, resource=row.resource, score=row.score,
        evidence=msgspec.json.decode(row.evidence), severity=row.severity, summary=row.summary, closes=row.closes, since=from_us(row.since_us), seen=from_us(row.seen_us),
        state=row.state, ended_at=None if row.ended_us is None else from_us(row.ended_us), ended_by=row.ended_by,
        reason=row.reason,
    )  # fmt: skip
