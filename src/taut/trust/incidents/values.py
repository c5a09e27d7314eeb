"""What an incident is."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from taut.trust.findings import Severity

Status = Literal["open", "mitigated", "resolved"]
STATUSES: Final[tuple[Status, ...]] = ("open", "mitigated", "resolved")
"""open: it hurts. mitigated: nothing is seen of it any more, or somebody says that it hurts no longer. resolved: a person
says that it is over, and why."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident, from its first alert on.

    severity: the gravest of its alerts. owner: who answers for it, empty while nobody does. resource, principal: what and
    whom it began with. heard_at: when something of it was seen last. ended_at, ended_by, reason: of its mitigation or its
    resolution. times: how often it came, 1 unless it came back after it was resolved.
    """

    id: str
    title: str
    severity: Severity
    status: Status
    owner: str
    resource: str
    principal: str
    opened_at: datetime
    opened_by: str
    heard_at: datetime
    times: int
    ended_at: datetime | None = None
    ended_by: str | None = None
    reason: str = ""

    @property
    def endpoint(self) -> str:
        """Return the name of the endpoint that it is about; empty where it is about none."""
        kind, _, name = self.resource.partition(":")
        return name if kind == "endpoint" and name != "any" else ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """An alert of an incident. over: whether it ended."""

    alert: str
    kind: str
    resource: str
    principal: str
    severity: Severity
    joined_at: datetime
    over: bool


Outcome = Literal["done", "refused", "left"]
"""How one act of a playbook ended. refused: it may not. left: there was nothing to do, or its budget is used up."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act of a playbook in an incident. story, number: which one, so that it is on record once. by: the principal."""

    story: str
    number: int
    incident: str
    playbook: str
    act: str
    outcome: Outcome
    said: str
    by: str
