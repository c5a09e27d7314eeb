"""What is declared to be done about incidents, as the manifest holds it: playbooks, and drills of them."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "critical"]


class PlayStepSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a playbook does; the words of other kinds of steps stay as they are."""

    do: Literal["page", "notify", "rollback", "contain"]
    receiver: str = ""  # of a page or a notice
    after: str = "0s"  # of a page: only where nobody answers for the incident by then
    words: str = ""  # of a notice
    newer_than: str = "24h"  # of a rollback: an older release is not the cause
    action: Literal["throttle", "step_up", "quarantine", "revoke"] = "throttle"
    lasts: str = "1h"
    per_s: float = 0.0
    allow: tuple[str, ...] = ()


class PlaybookSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about an incident that has such alerts. principal: by whose rights. See `taut.Playbook`."""

    name: str
    principal: str
    steps: tuple[PlayStepSpec, ...]
    kinds: tuple[str, ...] = ()  # all where none is named
    severity: Severity = "critical"
    endpoints: tuple[str, ...] = ()  # all where none is named
    count: int = 1
    within: str = "1h"
    rollbacks_per_hour: int = 1


class DrillSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault that is planted to see whether it is noticed, and what must follow within which time. See `taut.Drill`."""

    name: str
    endpoint: str
    failing: float = 0.0
    slow_ms: float = 0.0
    alarm: tuple[str, ...] = ()  # kinds of alerts; any where none is named
    alarm_within: str = "2m"
    page: str = ""  # the receiver that must be told; none need be where it is empty
    page_within: str = "3m"
    rollback_within: str | None = None  # None: no rollback is expected
    rate: float = 20.0  # requests a second that the drill sends
    in_production: bool = False
