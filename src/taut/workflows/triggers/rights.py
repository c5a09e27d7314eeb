"""Whether the one who applied the plan may do now what a trigger would do in his name."""

from __future__ import annotations

from taut.core.errors import Denied, NotFound
from taut.trust.identity.principals import OWNER, Principal
from taut.workflows.rooms import Rooms


def refusal(rooms: Rooms, who: str, action: str, resource: str) -> str:
    """Return why the one who applied the plan may not do something now; empty where he may.

    He may have lost the right, or his account, since: a trigger never does what its builder could not do himself.
    """
    context = {
        "single_user": not rooms.exposed and rooms.identity.is_single_user(), "plane": "control", "local": True,
        "environment": rooms.plans.environment(), "now": rooms.clock.now(),
    }  # fmt: skip
    try:
        rooms.policy.require(_principal(rooms, who), action, resource, context)
    except (Denied, NotFound) as error:
        return f"{who}, who applied the plan, may not {action} now: {error.message}"
    return ""


def _principal(rooms: Rooms, who: str) -> Principal:
    if who == OWNER.id:
        return OWNER
    found = rooms.identity.principal(who)
    if found.disabled:
        raise Denied(f"{who} is disabled")
    return Principal(id=found.id, kind=found.kind, roles=found.roles)
