"""What playbooks would do about an alert, and would have done about those of the last days; nothing is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from taut.core.units import parse_duration
from taut.lifecycle.plans import right_of
from taut.project.manifest import Manifest
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.trust.findings import Finding
from taut.workflows.alarms.policy import is_for
from taut.workflows.incidents.respond import endpoint_of_alert, target_of
from taut.workflows.rooms import Rooms

RECENT: Final = timedelta(days=30)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """A playbook about one alert: whether it is for it, and each step in words."""

    playbook: str
    begins: bool
    steps: tuple[str, ...]


def rehearse(rooms: Rooms, manifest: Manifest, finding: Finding) -> tuple[Rehearsed, ...]:
    """Return what each playbook would do about an alert if it opened now."""
    with rooms.records.read() as tx:
        lately = {
            book.name: rooms.watches.findings.since(tx, rooms.clock.now() - parse_duration(book.within))
            for book in manifest.playbooks
        }
    return tuple(
        Rehearsed(
            playbook=book.name, begins=is_for(book, finding, lately[book.name]),
            steps=tuple(_would(rooms, book, step, finding) for step in book.steps),
        )
        for book in manifest.playbooks
    )  # fmt: skip


def would_have(rooms: Rooms, manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the alerts of the last thirty days that would have begun each playbook, the newest first, by its name."""
    with rooms.records.read() as tx:
        seen = rooms.watches.findings.since(tx, rooms.clock.now() - RECENT)
    return {
        book.name: tuple(one.id for one in seen if is_for(book, one, _before(book, one, seen)))
        for book in manifest.playbooks
    }


def _before(book: PlaybookSpec, finding: Finding, seen: tuple[Finding, ...]) -> list[Finding]:
    since = finding.since - parse_duration(book.within)
    return [one for one in seen if since <= one.since <= finding.since]


def _would(rooms: Rooms, book: PlaybookSpec, step: PlayStepSpec, finding: Finding) -> str:
    endpoint = endpoint_of_alert(finding)
    action, resource = right_of(step, endpoint=endpoint, principal=finding.principal)
    refusal = rooms.alarms.refusal(book.principal, action, resource)
    if refusal:
        return f"{step.do}: refused, {refusal}"
    match step.do:
        case "page" | "notify":
            later = "" if step.after == "0s" else f", unless somebody answers for it after {step.after}"
            return f"{step.do}: tell {step.receiver}{later}"
        case "contain":
            return f"contain: {step.action} {finding.principal}" if finding.principal else "contain: nobody, the alert names none"  # fmt: skip
        case "rollback":
            target = target_of(rooms, endpoint, step.newer_than)
            if target.why_not:
                return f"rollback: none, {target.why_not}"
            moved = (
                f"end release {target.ends}" if target.ends else f"return to {target.version} ({target.to})"
            )
            return f"rollback: {moved}"
