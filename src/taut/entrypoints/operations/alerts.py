"""Operations on alerts, which is what findings are called where people are told of them, and on who is contained."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)
from taut.trust.containment import ACTIONS, Order

_MOST: Final = 1000


class AlertsList(Request, frozen=True):
    """all: those that are over too."""

    all: bool = False
    limit: int = 100


class AlertShow(Request, frozen=True):
    alert: str


class AlertDismiss(Request, frozen=True):
    alert: str
    reason: str


class Contain(Request, frozen=True):
    """action: throttle, step_up, quarantine or revoke. per_s: of a throttle. allow: endpoints that a quarantine leaves."""

    principal: str
    action: str
    reason: str
    lasts: str = "1h"
    per_s: float = 0.0
    allow: tuple[str, ...] = ()
    alert: str = ""


class ContainList(Request, frozen=True):
    """all: those that were lifted or ran out too."""

    all: bool = False
    limit: int = 100


class Lift(Request, frozen=True):
    containment: str
    reason: str


def _list(platform: Platform, _caller: Caller, request: AlertsList, _progress: Progress) -> Json:
    found = platform.watches.findings.list(
        state=None if request.all else "open", limit=_bounded(request.limit)
    )
    return {"alerts": to_json(found)}


def _show(platform: Platform, _caller: Caller, request: AlertShow, _progress: Progress) -> Json:
    found = platform.watches.findings.get(request.alert)
    because = [
        one for one in platform.alarms.containments.list(over=True, limit=_MOST) if one.alert == found.id
    ]
    deliveries = platform.alarms.deliveries.list(alert=found.id, limit=_MOST)
    return {**to_json(found), "containments": to_json(because), "deliveries": to_json(deliveries)}


def _dismiss(platform: Platform, caller: Caller, request: AlertDismiss, _progress: Progress) -> Json:
    found: Json = to_json(
        platform.alarms.dismiss(request.alert, actor=caller.principal.id, why=request.reason)
    )
    return found


def _begin(platform: Platform, caller: Caller, request: Contain, _progress: Progress) -> Json:
    action = next((one for one in ACTIONS if one == request.action), None)
    if action is None:
        raise InvalidInput(f"action {request.action[:40]!r} is unknown: use {', '.join(ACTIONS)}")
    order = Order(
        principal=request.principal, action=action, lasts=parse_duration(request.lasts), reason=request.reason,
        per_s=request.per_s, allowed=request.allow, alert=request.alert,
    )  # fmt: skip
    found: Json = to_json(platform.alarms.containments.begin(order, actor=caller.principal.id))
    return found


def _held(platform: Platform, _caller: Caller, request: ContainList, _progress: Progress) -> Json:
    found = platform.alarms.containments.list(over=request.all, limit=_bounded(request.limit))
    return {"containments": to_json(found)}


def _lift(platform: Platform, caller: Caller, request: Lift, _progress: Progress) -> Json:
    lifted = platform.alarms.containments.lift(
        request.containment, actor=caller.principal.id, why=request.reason
    )
    found: Json = to_json(lifted)
    return found


def _bounded(limit: int) -> int:
    if not 1 <= limit <= _MOST:
        raise InvalidInput(f"limit is {limit}: choose 1 to {_MOST}")
    return limit


def _any(_request: Any) -> str:
    return "alert:any"


def _alert(request: Any) -> str:
    return f"alert:{request.alert}"


def _principal(request: Any) -> str:
    return f"principal:{request.principal}"


def _containment(request: Any) -> str:
    return f"containment:{request.containment}"


OPERATIONS: Final = (
    Operation(name="alerts.list", action="alert.read", request=AlertsList, handle=_list, resource=_any, reads=True, summary="List open alerts"),
    Operation(name="alerts.show", action="alert.read", request=AlertShow, handle=_show, resource=_alert, reads=True, summary="Show an alert with its figures, and what followed from it"),
    Operation(name="alerts.dismiss", action="alert.dismiss", request=AlertDismiss, handle=_dismiss, resource=_alert, summary="Say that what an alert is about is right, and take it for usual"),
    Operation(name="contain.begin", action="contain.begin", request=Contain, handle=_begin, resource=_principal, fresh=True, summary="Hold a principal back for a time"),
    Operation(name="contain.list", action="alert.read", request=ContainList, handle=_held, resource=_any, reads=True, summary="List who is contained"),
    Operation(name="contain.lift", action="contain.lift", request=Lift, handle=_lift, resource=_containment, summary="End a containment"),
)  # fmt: skip
