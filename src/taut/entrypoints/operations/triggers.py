"""Operations on triggers: how they stand, a run begun by hand, a pause."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    is_single_user,
    to_json,
)
from taut.project.declared import model_of

_MOST: Final = 1000


class TriggerList(Request, frozen=True):
    """model: all that have triggers without one. limit: of its newest runs."""

    model: str = ""
    limit: int = 5


class TriggerWord(Request, frozen=True):
    model: str
    reason: str


def _list(platform: Platform, _caller: Caller, request: TriggerList, _progress: Progress) -> Json:
    from taut.bootstrap.retraining import triggers_of
    from taut.workflows.triggers import with_triggers

    if not 1 <= request.limit <= _MOST:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to {_MOST}")
    manifest = platform.plans.require()
    models = [request.model] if request.model else [spec.name for spec in with_triggers(manifest)]
    found = []
    for name in models:
        model_of(manifest, name)
        triggers, seen = triggers_of(platform, name)
        found.append(to_json(triggers.standing(seen, limit=request.limit)))
    return {"models": found}


def _fire(platform: Platform, caller: Caller, request: TriggerWord, progress: Progress) -> Json:
    from taut.bootstrap.retraining import triggers_of

    triggers, seen = triggers_of(platform, request.model)
    targets = seen.request["endpoints"]
    _require_release(platform, caller, [one["name"] for one in targets if not one["refused"]])
    story = triggers.fire(seen, actor=caller.principal.id, reason=request.reason)
    if platform.publisher is None:  # nobody else works on stories where the platform does not run
        platform.stories.watch(story, progress)
        platform.stories.work(until_idle=True)
    return {"model": request.model, "story": story, "state": str(platform.stories.status(story).state)}


def _pause(platform: Platform, caller: Caller, request: TriggerWord, _progress: Progress) -> Json:
    from taut.bootstrap.retraining import triggers_of

    triggers, seen = triggers_of(platform, request.model)
    triggers.pause(seen, actor=caller.principal.id, reason=request.reason)
    return dict(to_json(triggers.standing(seen)))


def _resume(platform: Platform, caller: Caller, request: TriggerWord, _progress: Progress) -> Json:
    from taut.bootstrap.retraining import triggers_of

    triggers, seen = triggers_of(platform, request.model)
    endpoints = platform.plans.require().endpoints
    _require_release(platform, caller, [one.name for one in endpoints if one.model == request.model])
    triggers.resume(seen, actor=caller.principal.id, reason=request.reason)
    return dict(to_json(triggers.standing(seen)))


def _require_release(platform: Platform, caller: Caller, endpoints: list[str]) -> None:
    """What follows releases by itself, in the name of whoever applied the plan: nobody lets it who may not release himself."""
    context = {
        "single_user": is_single_user(platform), "environment": platform.plans.environment(), "plane": "control",
        "local": caller.local, "now": platform.clock.now(),
    }  # fmt: skip
    for name in endpoints:
        platform.policy.require(caller.principal, "release.start", f"endpoint:{name}", context)


def _model(request: Any) -> str:
    return f"model:{request.model or 'any'}"


OPERATIONS: Final = (
    Operation(name="trigger.list", action="run.read", request=TriggerList, handle=_list, resource=_model, reads=True, summary="Show what triggers wait for, and the runs that they began"),
    Operation(name="trigger.fire", action="train", request=TriggerWord, handle=_fire, resource=_model, summary="Begin the run of a trigger now: screen, train, judge, release"),
    Operation(name="trigger.pause", action="train", request=TriggerWord, handle=_pause, resource=_model, summary="Let no trigger of a model begin a run"),
    Operation(name="trigger.resume", action="train", request=TriggerWord, handle=_resume, resource=_model, summary="Let triggers of a model begin runs again"),
)  # fmt: skip
