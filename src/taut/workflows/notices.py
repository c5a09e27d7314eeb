"""What of the ledger a person should look at: its acts under the rules of notices, and plans that gave rights away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from taut.core.times import from_us, to_us
from taut.lifecycle.plans import policy_of, rights_touched
from taut.trust.findings import Finding, Severity, Sighting
from taut.trust.ledger import Leaf
from taut.trust.notices import RULES, Act, Notice, Window, analyse
from taut.trust.notices.rules import MACHINES
from taut.trust.policy import ADMIN_ONLY, DISCLOSING
from taut.workflows.access import action_of, wider
from taut.workflows.rooms import Rooms

LEAVES_MAX: Final = 10_000
BASELINE_DAYS: Final = 30
_ADMINISTERS: Final = frozenset(
    {*ADMIN_ONLY, "plan.apply", "keys.rotate", "model.approve", "release.promote", "release.rollback", "fleet.scale"}
)  # fmt: skip
_READ: Final = frozenset(DISCLOSING)
_SAID_MAX: Final = 5
TOLD_FOR: Final = timedelta(days=1)
_UNSEEN: Final = timedelta(hours=1)
_TOLD_MAX: Final = 100
_PRINCIPAL_MAX: Final = 63
_GROUP_MAX: Final = 128
_SEVERITIES: Final[dict[str, Severity]] = {"high": "warning", "medium": "info"}
"""As what a notice is told: an unusual act is a reason to look, and by itself no incident."""
KINDS: Final = tuple(f"notice.{rule}" for rule in (*RULES, "policy_widened", "policy_changed"))


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """Notices of a time. leaves: that were read, those for habits included; whole: whether those were all."""

    since: datetime
    notices: tuple[Notice, ...]
    leaves: int
    whole: bool


def look(rooms: Rooms, *, since: datetime) -> Looked:
    """Judge what was done since then, beside the thirty days before it. Reads the newest 10,000 leaves."""
    before = since - timedelta(days=BASELINE_DAYS)
    leaves = rooms.ledger.show(since=before, limit=LEAVES_MAX, details=True)
    since_us = to_us(since)
    acts = [_act(leaf) for leaf in sorted(leaves, key=lambda leaf: (leaf.at_us, leaf.id))]
    window = Window(
        before=tuple(act for act in acts if act.at_us < since_us),
        acts=tuple(act for act in acts if act.at_us >= since_us),
    )
    found = [*analyse(window), *_plans(rooms, window.acts)]
    return Looked(
        since=since,
        notices=tuple(sorted(found, key=lambda notice: (-notice.at_us, notice.rule, notice.leaf))),
        leaves=len(leaves),
        whole=len(leaves) < LEAVES_MAX,
    )


def tell(rooms: Rooms) -> tuple[Finding, ...]:
    """Report what of the last day a person should look at as alerts, each once, and let those of before lapse; return the open ones.

    What is only good to know stays in the report. Reads up to 10,000 leaves: call it when there are new ones.
    """
    looked = look(rooms, since=rooms.clock.now() - TOLD_FOR)
    grave = [sighting_of(one) for one in looked.notices if one.severity in _SEVERITIES]
    found = rooms.watches.findings.report(grave[:_TOLD_MAX])
    rooms.watches.findings.lapse(KINDS, unseen_for=_UNSEEN)
    return found


def sighting_of(notice: Notice) -> Sighting:
    """Return a notice as what is told: about its actor, at its leaf, so that each is one of its own."""
    named = notice.actor not in MACHINES and len(notice.actor) <= _PRINCIPAL_MAX
    return Sighting(
        kind=f"notice.{notice.rule}", resource=f"leaf:{notice.leaf}", principal=notice.actor if named else "",
        group="" if named else notice.actor[:_GROUP_MAX], score=1.0, severity=_SEVERITIES[notice.severity], summary=notice.said,
        evidence={"subject": notice.subject, "leaf": notice.leaf, "at": from_us(notice.at_us).isoformat()},
        closes="by itself, a day later",
    )  # fmt: skip


def _act(leaf: Leaf) -> Act:
    action = action_of(leaf.kind, leaf.body)
    details = leaf.details if isinstance(leaf.details, dict) else {}
    return Act(
        leaf=leaf.id, at_us=leaf.at_us, actor=leaf.actor, kind=leaf.kind, subject=leaf.subject,
        body={**details, **leaf.body}, action=action, administers=action in _ADMINISTERS, discloses=action in _READ,
    )  # fmt: skip


def _plans(rooms: Rooms, acts: tuple[Act, ...]) -> Iterator[Notice]:
    """Yield the plans that changed rights, and what they gave to whom among those who have an account now."""
    plans = rooms.plans.history(limit=1000)
    earlier = {plan.plan: older.plan for plan, older in pairwise(plans)}
    for act in acts:
        if act.kind != "plan.applied":
            continue
        plan = act.subject.partition(":")[2]
        _, new = rooms.plans.show(plan)
        old = rooms.plans.show(earlier[plan])[1] if plan in earlier else None
        touched = rights_touched(old, new)
        if not touched:
            continue
        gained = wider(rooms, policy_of(old), policy_of(new), at=from_us(act.at_us))
        said = f"{act.subject} changed rights in {', '.join(touched[:_SAID_MAX])}"
        if gained:
            more = f" and {len(gained) - _SAID_MAX} more" if len(gained) > _SAID_MAX else ""
            said += f"; newly permitted: {', '.join(gained[:_SAID_MAX])}{more}"
        yield Notice(
            rule="policy_widened" if gained else "policy_changed", severity="high" if gained else "low",
            actor=act.actor, subject=act.subject, at_us=act.at_us, said=said, leaf=act.leaf,
        )  # fmt: skip
