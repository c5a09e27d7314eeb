"""Operations on rights: the policies that hold, why they decide as they do, who uses what, and emergencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taut.core.errors import Denied, InvalidInput, NotFound
from taut.core.units import parse_duration
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
from taut.trust.breakglass import is_emergency
from taut.trust.identity.principals import OWNER, Principal
from taut.trust.policy import Policy, Statement
from taut.workflows.access import review


class PolicyExplain(Request, frozen=True):
    """context: facts for policy; those that are known here are added, unless they are given."""

    principal: str
    action: str
    resource: str
    context: dict[str, Any] = msgspec.field(default_factory=dict)


class PolicyReview(Request, frozen=True):
    """days: how far back use is counted."""

    days: int = 90


class BreakGlassStart(Request, frozen=True):
    reason: str
    ttl: str = "30m"


def _show(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    policy: Policy = platform.policy.now()
    info = platform.plans.current_info()
    return {
        "digest": policy.digest,
        "plan": None if info is None else info.plan,
        "applied_at": None if info is None else to_json(info.applied_at),
        "policies": [_placed(one) for one in policy.statements],
        "text": policy.text,
    }


def _placed(one: Statement) -> Json:
    return {"id": one.id, "effect": one.effect, "file": one.file, "line": one.line}


def _explain(platform: Platform, _caller: Caller, request: PolicyExplain, _progress: Progress) -> Json:
    policy: Policy = platform.policy.now()
    who = _principal(platform, request.principal)
    context = {**_known(platform, request), **request.context}
    decision = policy.decide(who, request.action, request.resource, context)
    found = (policy.statement(id_) for id_ in decision.policies)
    return {
        "allow": decision.allow,
        "reasons": list(decision.reasons),
        "policies": [{**_placed(one), "text": one.text} for one in found if one is not None],
        "errors": list(decision.errors),
        "principal": {"id": who.id, "kind": who.kind, "roles": list(who.roles)},
        "attributes": {
            name: value for name, value in to_json(policy.attributes(request.resource)).items() if value
        },
        "context": to_json({name: value for name, value in context.items() if name != "now"}),
        "digest": policy.digest,
    }


def _principal(platform: Platform, id_: str) -> Principal:
    """Somebody as he would ask; one that is disabled has no role any more."""
    if id_ == OWNER.id:
        return OWNER
    row = platform.identity.principal(id_)
    return Principal(id=row.id, kind=row.kind, roles=() if row.disabled else row.roles)


def _known(platform: Platform, request: PolicyExplain) -> Mapping[str, object]:
    """The facts that the operation itself would tell to policy, as far as they follow from what is asked."""
    plane = "data" if request.action in ("predict", "feedback") else "control"
    known: dict[str, object] = {"plane": plane, "now": platform.clock.now()}
    if plane == "control":
        known |= {"single_user": is_single_user(platform), "environment": platform.plans.environment()}
    kind, _, name = request.resource.partition(":")
    if kind == "model" and "@" in name:
        try:
            info = platform.registry.show(platform.registry.resolve(name))
        except (NotFound, InvalidInput):
            return known  # a version that is not there has no author: explained as it would be decided
        known["author"] = info.candidate.author
    return known


def _review(platform: Platform, _caller: Caller, request: PolicyReview, progress: Progress) -> Json:
    if not 1 <= request.days <= 3660:
        raise InvalidInput(f"days is {request.days}: choose 1 to 3660")
    progress("asking the policies about everybody", None)
    policy: Policy = platform.policy.now()
    return {
        "days": request.days,
        "digest": policy.digest,
        "principals": to_json(review(platform, policy, days=request.days)),
        "emergencies": to_json(platform.policy.glass.history()),
    }


def _start(platform: Platform, caller: Caller, request: BreakGlassStart, _progress: Progress) -> Json:
    if not (caller.local and is_emergency(caller.principal)):
        raise Denied(
            "an emergency begins on the installation's own machine, by whoever owns its files: run `taut break-glass start` "
            "there, without a token"
        )
    glass = platform.policy.glass.begin(
        request.reason, parse_duration(request.ttl), actor=caller.principal.id
    )
    return _glass(glass)


def _end(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return _glass(platform.policy.glass.end(actor=caller.principal.id))


def _glass(glass: Any) -> Json:
    plain: Json = to_json(glass)
    return plain


def _any_policy(_request: Any) -> str:
    return "policy:project"


def emergency_of(platform: Platform) -> Json | None:
    """Return the emergency that holds, for whoever shows the state of things; None where none does."""
    holding = platform.policy.glass.holding()
    return None if holding is None else _glass(holding)


OPERATIONS: Final = (
    Operation(name="policy.show", action="policy.read", request=Nothing, handle=_show, resource=_any_policy, reads=True, summary="Show the policies that hold"),
    Operation(name="policy.explain", action="policy.read", request=PolicyExplain, handle=_explain, resource=_any_policy, reads=True, summary="Say whether a principal may do something, and which policies decide it"),
    Operation(name="policy.review", action="policy.review", request=PolicyReview, handle=_review, resource=_any_policy, reads=True, summary="Set everybody's rights beside their use"),
    Operation(name="break-glass.start", action="break.glass", request=BreakGlassStart, handle=_start, resource=_any_policy, summary="Begin an emergency, in which the built-in policies decide alone"),
    Operation(name="break-glass.end", action="break.glass", request=Nothing, handle=_end, resource=_any_policy, summary="End the emergency that holds"),
)  # fmt: skip
