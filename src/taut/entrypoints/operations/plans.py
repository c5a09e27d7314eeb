"""Operations on the project itself: plan, apply, revert, and what holds now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput, TautError
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    is_single_user,
    to_json,
)
from taut.entrypoints.operations.places import placed
from taut.entrypoints.operations.releases import foreseen_at
from taut.entrypoints.operations.security import setting_of
from taut.lifecycle.plans import Applied, Plan, Surroundings, policy_of, rights_lent, rights_touched
from taut.project.manifest import Manifest
from taut.trust.identity import OWNER, Principal
from taut.trust.threats import Change as FlowChange
from taut.workflows import threats
from taut.workflows.access import compare, recorded

_RECENT: Final = timedelta(days=30)


class PlanShow(Request, frozen=True):
    """What a project file became. bundle: the code's bytes, base64 in JSON."""

    manifest: Manifest
    bundle: bytes
    allow_removal: bool = False


class PlanApply(Request, frozen=True):
    """base: the plan that was decided upon; refused when another holds by now. "" stands for none yet."""

    manifest: Manifest
    bundle: bytes
    allow_removal: bool = False
    base: str | msgspec.UnsetType = msgspec.UNSET


class PlanRevert(Request, frozen=True):
    """to: id or number of an applied plan."""

    to: str
    allow_removal: bool = False


class PlanHistory(Request, frozen=True):
    limit: int = 50


def _plan(platform: Platform, caller: Caller, request: PlanShow, progress: Progress) -> Json:
    progress("judging the plan", None)
    manifest = placed(platform, caller, request.manifest)
    plan: Plan = platform.plans.plan(manifest, request.bundle, _surroundings(platform, request.allow_removal))
    touched = rights_touched(platform.plans.current(), manifest)
    return {
        "base": plan.base or "",
        "changes": to_json(plan.changes),
        "verdict": str(plan.verdict.decision),
        "reasons": list(plan.verdict.reasons),
        "checks": to_json(plan.evidence.checks),
        "rights": {"touched": list(touched), **(_dry_run(platform, caller, manifest) if touched else {})},
        "playbooks": _playbooks(platform, manifest),
        "canaries": _canaries(platform, manifest),
        "flows": to_json(threats.compare(platform, manifest, setting_of(platform.config))),
    }


def _canaries(platform: Platform, manifest: Manifest) -> Json:
    """What canaries of each endpoint that declares them would find, where that changes."""
    before = {spec.name: spec for spec in (platform.plans.current() or Manifest()).endpoints}
    return {
        spec.name: foreseen_at(platform, spec)
        for spec in manifest.endpoints
        if spec.release.kind == "canary" and spec != before.get(spec.name)
    }


def _playbooks(platform: Platform, manifest: Manifest) -> Json:
    """Which alerts of the last thirty days playbooks would have answered, where they change."""
    before = platform.plans.current() or Manifest()
    if manifest.playbooks == before.playbooks:
        return {}
    from taut.workflows.incidents.rehearse import would_have

    return dict(to_json(would_have(platform, manifest)))


def _dry_run(platform: Platform, caller: Caller, manifest: Manifest) -> Json:
    """What the policies would have said to recorded requests; nothing where they do not hold together.

    Who asked for what is told to whoever may review rights; to others, how many kinds of requests there are.
    """
    try:
        old, new = platform.policy.now(), policy_of(manifest)
    except TautError:
        return {}  # the gate says what is wrong
    asked = recorded(platform, since=platform.clock.now() - _RECENT)
    changed = compare(platform, old, new, asked)
    context = {"plane": "control", "local": caller.local, "now": platform.clock.now()}
    may = platform.policy.decide(caller.principal, "policy.review", "policy:project", context).allow
    return {
        "before": old.digest, "after": new.digest, "asked": len(asked), "otherwise": len(changed),
        "changed": to_json(changed) if may else [],
    }  # fmt: skip


def _require_rights(platform: Platform, caller: Caller, manifest: Manifest) -> None:
    """Who changes what policies say or see changes everybody's rights: that is administration of its own.

    A playbook acts by somebody else's rights. Whoever brings or changes one needs them himself, or administers.
    """
    before = platform.plans.current()
    touched, lent = rights_touched(before, manifest), rights_lent(before, manifest)
    if not touched and not lent:
        return
    context = {
        "plane": "control", "local": caller.local, "now": platform.clock.now(), "single_user": is_single_user(platform),
        "environment": _guarded(platform, manifest.environment),
    }  # fmt: skip
    admin = ("policy.admin", "policy:project")
    administers = not touched and platform.policy.decide(caller.principal, *admin, context).allow
    for action, resource in [admin] if touched else [] if administers else lent:
        platform.policy.require(caller.principal, action, resource, context)


def _apply(platform: Platform, caller: Caller, request: PlanApply, progress: Progress) -> Json:
    progress("applying the plan", None)
    manifest = placed(platform, caller, request.manifest)
    _require_rights(platform, caller, manifest)
    base: Any = request.base
    applied: Applied = platform.plans.apply(
        manifest,
        request.bundle,
        actor=caller.principal.id,
        surroundings=_surroundings(platform, request.allow_removal),
        base=(base or None) if base is not msgspec.UNSET else base,
    )
    return _applied(platform, caller, applied)


def _revert(platform: Platform, caller: Caller, request: PlanRevert, progress: Progress) -> Json:
    progress("returning to an earlier plan", None)
    _require_rights(platform, caller, platform.plans.show(request.to)[1])
    applied: Applied = platform.plans.revert(
        request.to, actor=caller.principal.id, surroundings=_surroundings(platform, request.allow_removal)
    )
    return _applied(platform, caller, applied)


def _history(platform: Platform, _caller: Caller, request: PlanHistory, _progress: Progress) -> Json:
    if not 1 <= request.limit <= 10_000:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to 10000")
    return {"plans": to_json(platform.plans.history(limit=request.limit))}


def _current(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    manifest = platform.plans.require()
    info = platform.plans.current_info()
    return {**to_json(info), "manifest": {**to_json(manifest), "root": ""}}


def _applied(platform: Platform, caller: Caller, applied: Applied) -> Json:
    """What applying did; the threat model follows the plan. Cut off before that, it is said to be old, and the next plan renews it."""
    flows = FlowChange()
    if applied.plan is not None:
        flows = threats.renew(platform, setting_of(platform.config), actor=caller.principal.id)
    return {
        "flows": to_json(flows),
        "plan": applied.plan,
        "changes": to_json(applied.changes),
        "verdict": str(applied.verdict.decision),
        "reasons": list(applied.verdict.reasons),
    }


def _surroundings(platform: Platform, allow_removal: bool) -> Surroundings:
    with platform.records.read() as tx:
        live = frozenset(route.endpoint for route in platform.releases.routes(tx))
    return Surroundings(
        live=live, allow_removal=allow_removal, administrators=_administrators(platform), services=_services(platform)
    )  # fmt: skip


def _services(platform: Platform) -> tuple[Principal, ...]:
    return tuple(
        Principal(id=row.id, kind=row.kind, roles=row.roles)
        for row in platform.identity.principals()
        if row.kind == "service" and not row.disabled
    )


def _administrators(platform: Platform) -> tuple[Principal, ...]:
    """Everybody who administers without an emergency: the owner of the files as long as he is alone, and those who are named."""
    named = tuple(
        Principal(id=row.id, kind=row.kind, roles=row.roles)
        for row in platform.identity.principals()
        if "admin" in row.roles and not row.disabled
    )
    alone = is_single_user(platform) and platform.plans.environment() != "production"
    return (OWNER, *named) if alone else named


def _facts(platform: Platform, request: PlanApply) -> Mapping[str, object]:
    return {"environment": _guarded(platform, request.manifest.environment)}


def _revert_facts(platform: Platform, request: PlanRevert) -> Mapping[str, object]:
    _, manifest = platform.plans.show(request.to)
    return {"environment": _guarded(platform, manifest.environment)}


def _guarded(platform: Platform, wanted: str) -> str:
    """The environment that a change is decided by: what is production now is not left by calling it otherwise."""
    now: str = platform.plans.environment()
    return now if now == "production" else wanted


def _project(request: Any) -> str:
    return f"project:{request.manifest.project}"


def _any_project(_request: Any) -> str:
    return "project:any"


OPERATIONS: Final = (
    Operation(name="plan.show", action="plan.read", request=PlanShow, handle=_plan, resource=_project, summary="Say what a project file would change, judged by the plan gate"),
    Operation(name="plan.apply", action="plan.apply", request=PlanApply, handle=_apply, resource=_project, facts=_facts, summary="Make a project file the project"),
    Operation(name="plan.revert", action="plan.apply", request=PlanRevert, handle=_revert, resource=_any_project, facts=_revert_facts, summary="Return to an earlier plan"),
    Operation(name="plan.history", action="plan.read", request=PlanHistory, handle=_history, resource=_any_project, reads=True, summary="List applied plans"),
    Operation(name="plan.current", action="plan.read", request=Nothing, handle=_current, resource=_any_project, reads=True, summary="Show the manifest that holds now"),
)  # fmt: skip
