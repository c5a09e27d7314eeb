"""What of the ledger a person should look at: its acts under the rules of notices, and plans that gave rights away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from taut.core.times import from_us, to_us
from taut.lifecycle.plans import policy_of, rights_touched
from taut.trust.ledger import Leaf
from taut.trust.notices import Act, Notice, Window, analyse
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
