"""Triggers of models, furnished: what control does about them, and what a person does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taut.bootstrap.platform import Platform

if TYPE_CHECKING:
    from taut.lifecycle.triggers import Triggers, Watched


def look_at_triggers(platform: Platform) -> None:
    """Begin the runs that are due. Where no model has a trigger, nothing is loaded for it."""
    manifest = platform.plans.current()
    if manifest is None or not any(spec.triggers for spec in manifest.models):
        return
    from taut.workflows.triggers import look

    watches = platform.watches
    look(platform, platform.stories, watches.findings, watches.outcomes)


def triggers_of(platform: Platform, model: str) -> tuple[Triggers, Watched]:
    """Return the room of triggers, and what is known of a model now. Raises NotFound for one that is not declared."""
    from taut.workflows.triggers import triggers_of as room
    from taut.workflows.triggers import watched

    triggers, watches = room(platform, platform.stories), platform.watches
    return triggers, watched(platform, model, triggers, watches.findings, watches.outcomes)
