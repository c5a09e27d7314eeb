"""Triggers of models, furnished: what control does about them, and what a person does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taut.bootstrap.platform import Platform
from taut.core.errors import Denied, NotFound
from taut.trust.identity.principals import OWNER, Principal

if TYPE_CHECKING:
    from taut.lifecycle.triggers import Triggers, Watched


def look_at_triggers(platform: Platform) -> None:
    """Begin the runs that are due. Where no model has a trigger, nothing is loaded for it."""
    manifest = platform.plans.current()
    if manifest is None or not any(spec.triggers for spec in manifest.models):
        return
    from taut.workflows.triggers import look

    watches = platform.watches
    look(
        platform, platform.stories, watches.findings, watches.outcomes,
        lambda who, action, resource: refusal(platform, who, action, resource),
    )  # fmt: skip


def triggers_of(platform: Platform, model: str) -> tuple[Triggers, Watched]:
    """Return the room of triggers, and what is known of a model now. Raises NotFound for one that is not declared."""
    from taut.workflows.triggers import triggers_of as room
    from taut.workflows.triggers import watched

    triggers, watches = room(platform, platform.stories), platform.watches
    seen = watched(
        platform, model, triggers, watches.findings, watches.outcomes,
        lambda who, action, resource: refusal(platform, who, action, resource),
    )  # fmt: skip
    return triggers, seen


def refusal(platform: Platform, who: str, action: str, resource: str) -> str:
    """Return why the one who applied the plan may not do now what a trigger would do in his name; empty where he may.

    He may have lost the right, or his account, since: a trigger never does what its builder could not do himself.
    """
    context = {
        "single_user": not platform.exposed and platform.identity.is_single_user(), "plane": "control", "local": True,
        "environment": platform.plans.environment(), "now": platform.clock.now(),
    }  # fmt: skip
    try:
        platform.policy.require(_principal(platform, who), action, resource, context)
    except (Denied, NotFound) as error:
        return f"{who}, who applied the plan, may not {action} now: {error.message}"
    return ""


def _principal(platform: Platform, who: str) -> Principal:
    if who == OWNER.id:
        return OWNER
    found = platform.identity.principal(who)
    if found.disabled:
        raise Denied(f"{who} is disabled")
    return Principal(id=found.id, kind=found.kind, roles=found.roles)
