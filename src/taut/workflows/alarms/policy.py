"""What a project says is to follow from an alert: who is told of it, and who is contained because of it."""

from __future__ import annotations

from collections.abc import Iterator

from taut.core.units import parse_duration
from taut.project.manifest import ContainSpec, Manifest, ReceiverSpec
from taut.trust.containment import Order
from taut.trust.findings import Change, Finding, at_least


def told(manifest: Manifest, finding: Finding) -> Iterator[ReceiverSpec]:
    """Yield who is told of a finding's changes."""
    for one in manifest.receivers:
        named = not one.kinds or any(_is_of(finding.kind, kind) for kind in one.kinds)
        if named and at_least(finding.severity, one.severity):
            yield one


def orders(manifest: Manifest, finding: Finding, change: Change) -> Iterator[Order]:
    """Yield what is done about the principal whom a finding names, when it opens or becomes graver."""
    if change == "ended" or not finding.principal:
        return
    for one in manifest.containments:
        if _is_of(finding.kind, one.on) and at_least(finding.severity, one.severity):
            yield _order(one, finding)


def _order(spec: ContainSpec, finding: Finding) -> Order:
    figures = ", ".join(f"{name} {value}" for name, value in finding.evidence.items())
    return Order(
        principal=finding.principal, action=spec.action, lasts=parse_duration(spec.lasts), per_s=spec.per_s,
        allowed=spec.allow, alert=finding.id, reason=f"{spec.name}: {finding.kind} ({figures})"[:500],
    )  # fmt: skip


def _is_of(kind: str, on: str) -> bool:
    """Whether a kind is the one that is named, or one of that family."""
    return kind == on or kind.startswith(f"{on}.")
