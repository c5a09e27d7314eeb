"""What a project says is to follow from an alert: who is told of it, and who is contained because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import Denied, NotFound
from taut.core.units import parse_duration
from taut.lifecycle.plans import Plans
from taut.ports.records import Tx
from taut.ports.stories import Stories
from taut.project.manifest import ContainSpec, Manifest, ReceiverSpec
from taut.project.responses import PlaybookSpec
from taut.trust.containment import Containments, Order
from taut.trust.costs import KINDS as COSTS
from taut.trust.deliveries import Deliveries
from taut.trust.findings import Change, Finding, at_least
from taut.trust.incidents import Incident, Incidents

OPENS: Final = "critical"
"""The severity of alerts that open an incident by themselves."""

Since = Callable[[Tx, datetime], Sequence[Finding]]


class FollowUps:
    """Hears of changes of findings, and does what the project says inside their transactions."""

    def __init__(
        self,
        plans: Plans,
        stories: Stories,
        containments: Containments,
        deliveries: Deliveries,
        incidents: Incidents,
        *,
        since: Since,
        now: Callable[[], datetime],
    ) -> None:
        self._plans: Final = plans
        self._stories: Final = stories
        self._containments: Final = containments
        self._deliveries: Final = deliveries
        self._incidents: Final = incidents
        self._since: Final = since
        self._now: Final = now

    def __call__(self, tx: Tx, finding: Finding, change: Change) -> None:
        """Say who is told, who is contained, and whom it lets go; what policy may not contain is a leaf. A critical alert, and
        one that a playbook is for, opens an incident, others join one."""
        over = finding.state == "lapsed" and finding.kind in COSTS  # a breaker closes by itself
        if finding.state == "dismissed" or over:
            why = f"alert {finding.id} was {finding.state}: {finding.reason}"[:500]
            self._containments.lift_because(tx, finding.id, actor=str(finding.ended_by), why=why)
        manifest = self._plans.current_in(tx) or Manifest()
        self._respond(tx, manifest, finding, change)
        for order in orders(manifest, finding, change):
            try:
                self._containments.begin_in(tx, order, actor="policy")
            except (Denied, NotFound) as error:
                self._containments.refuse(tx, order, error.message)
        for receiver in told(manifest, finding):
            delivery = self._deliveries.add(tx, alert=finding.id, change=change, receiver=receiver.name)
            self._stories.start_in(tx, "tell", {"delivery": delivery}, key=delivery)

    def _respond(self, tx: Tx, manifest: Manifest, finding: Finding, change: Change) -> None:
        """Let incidents hear of it, and begin each playbook that is for it."""
        books = self._books(tx, manifest, finding) if change != "ended" else []
        opens = finding.severity == OPENS or bool(books)
        incident = self._incidents.hear(tx, finding, change, opens=opens)
        if incident is None or incident.status == "resolved":
            return
        for book in books:
            asked = {"incident": incident.id, "alert": finding.id, "playbook": msgspec.to_builtins(book)}
            self._stories.start_in(tx, "respond", asked, key=_once(book, incident, finding))

    def _books(self, tx: Tx, manifest: Manifest, finding: Finding) -> list[PlaybookSpec]:
        def lately(book: PlaybookSpec) -> Sequence[Finding]:
            return () if book.count == 1 else self._since(tx, self._now() - parse_duration(book.within))

        return [book for book in manifest.playbooks if is_for(book, finding, lately(book))]


def _once(book: PlaybookSpec, incident: Incident, finding: Finding) -> str:
    """Return for what a playbook is carried out once: people are told once for each time that an incident comes, somebody is held
    back and releases are ended for everybody and everything that its alerts are about."""
    key = f"respond/{incident.id}/{incident.times}/{book.name}"
    if not any(step.do in ("contain", "rollback") for step in book.steps):
        return key
    return f"{key}/{digest_bytes(repr((finding.resource, finding.principal)).encode())}"


def is_for(book: PlaybookSpec, finding: Finding, lately: Sequence[Finding] = ()) -> bool:
    """Whether a playbook is for an alert. lately: what was found within its time, where it counts them."""
    if not _fits(book, finding):
        return False
    alike = (
        one
        for one in lately
        if one.id != finding.id
        and _fits(book, one)
        and (one.resource == finding.resource or (finding.principal and one.principal == finding.principal))
    )
    return 1 + sum(1 for _ in alike) >= book.count


def _fits(book: PlaybookSpec, finding: Finding) -> bool:
    named = not book.kinds or any(is_of(finding.kind, kind) for kind in book.kinds)
    there = not book.endpoints or finding.resource in {f"endpoint:{name}" for name in book.endpoints}
    return named and there and at_least(finding.severity, book.severity)


def told(manifest: Manifest, finding: Finding) -> Iterator[ReceiverSpec]:
    """Yield who is told of a finding's changes."""
    for one in manifest.receivers:
        named = not one.kinds or any(is_of(finding.kind, kind) for kind in one.kinds)
        if named and at_least(finding.severity, one.severity):
            yield one


def orders(manifest: Manifest, finding: Finding, change: Change) -> Iterator[Order]:
    """Yield what is done about the principal whom a finding names, when it opens or becomes graver."""
    if change == "ended" or not finding.principal:
        return
    for one in manifest.containments:
        if is_of(finding.kind, one.on) and at_least(finding.severity, one.severity):
            yield _order(one, finding)


def _order(spec: ContainSpec, finding: Finding) -> Order:
    figures = ", ".join(f"{name} {value}" for name, value in finding.evidence.items())
    return Order(
        principal=finding.principal, action=spec.action, lasts=parse_duration(spec.lasts), per_s=spec.per_s,
        allowed=spec.allow, alert=finding.id, reason=f"{spec.name}: {finding.kind} ({figures})"[:500],
    )  # fmt: skip


def is_of(kind: str, on: str) -> bool:
    """Whether a kind is the one that is named, or one of that family."""
    return kind == on or kind.startswith(f"{on}.")
