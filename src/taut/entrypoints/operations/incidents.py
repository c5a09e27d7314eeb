"""Operations on incidents: what belongs together, who answers for it, what was done, and the draft of its post-mortem."""

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
    to_json,
)

_MOST: Final = 1000


class IncidentList(Request, frozen=True):
    """all: those that are resolved too."""

    all: bool = False
    limit: int = 100


class IncidentShow(Request, frozen=True):
    incident: str


class IncidentRehearse(Request, frozen=True):
    alert: str


class IncidentOpen(Request, frozen=True):
    """endpoint, principal: what and whom it is about, so that alerts about the same join it."""

    title: str
    severity: str = "warning"
    endpoint: str = ""
    principal: str = ""


class IncidentNote(Request, frozen=True):
    incident: str
    text: str


class IncidentAssign(Request, frozen=True):
    """owner: whoever asks, where nobody is named."""

    incident: str
    owner: str = ""


class IncidentGrade(Request, frozen=True):
    incident: str
    severity: str
    reason: str


class IncidentEnd(Request, frozen=True):
    incident: str
    reason: str


def _list(platform: Platform, _caller: Caller, request: IncidentList, _progress: Progress) -> Json:
    if not 1 <= request.limit <= _MOST:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to {_MOST}")
    return {"incidents": to_json(platform.alarms.incidents.list(all=request.all, limit=request.limit))}


def _show(platform: Platform, _caller: Caller, request: IncidentShow, _progress: Progress) -> Json:
    from taut.workflows.incidents import timeline

    found = platform.alarms.incidents.get(request.incident)
    alerts = platform.alarms.incidents.alerts(found.id)
    return {
        **to_json(found), "endpoint": found.endpoint, "alerts": to_json(alerts),
        "timeline": to_json(timeline(platform, found, alerts)),
    }  # fmt: skip


def _report(platform: Platform, _caller: Caller, request: IncidentShow, _progress: Progress) -> Json:
    from taut.workflows.incidents import draft

    found = platform.alarms.incidents.get(request.incident)
    return {
        "incident": found.id,
        "markdown": draft(platform, found, platform.alarms.incidents.alerts(found.id)),
    }


def _open(platform: Platform, caller: Caller, request: IncidentOpen, _progress: Progress) -> Json:
    found: Json = to_json(
        platform.alarms.incidents.open(
            request.title, severity=request.severity, principal=request.principal, actor=caller.principal.id,
            resource=f"endpoint:{request.endpoint}" if request.endpoint else "",
        )
    )  # fmt: skip
    return found


def _note(platform: Platform, caller: Caller, request: IncidentNote, _progress: Progress) -> Json:
    found: Json = to_json(
        platform.alarms.incidents.note(request.incident, request.text, actor=caller.principal.id)
    )
    return found


def _assign(platform: Platform, caller: Caller, request: IncidentAssign, _progress: Progress) -> Json:
    owner = request.owner or caller.principal.id
    found: Json = to_json(
        platform.alarms.incidents.assign(request.incident, owner, actor=caller.principal.id)
    )
    return found


def _grade(platform: Platform, caller: Caller, request: IncidentGrade, _progress: Progress) -> Json:
    graded = platform.alarms.incidents.grade(
        request.incident, request.severity, actor=caller.principal.id, reason=request.reason
    )
    found: Json = to_json(graded)
    return found


def _mitigate(platform: Platform, caller: Caller, request: IncidentEnd, _progress: Progress) -> Json:
    found: Json = to_json(
        platform.alarms.incidents.mitigate(request.incident, request.reason, actor=caller.principal.id)
    )
    return found


def _resolve(platform: Platform, caller: Caller, request: IncidentEnd, _progress: Progress) -> Json:
    found: Json = to_json(
        platform.alarms.incidents.resolve(request.incident, request.reason, actor=caller.principal.id)
    )
    return found


def _rehearse(platform: Platform, _caller: Caller, request: IncidentRehearse, _progress: Progress) -> Json:
    from taut.workflows.incidents.rehearse import rehearse

    finding = platform.watches.findings.get(request.alert)
    found = rehearse(platform, platform.plans.require(), finding)
    return {"alert": finding.id, "playbooks": to_json(found)}


def _any(request: Any) -> str:
    return f"endpoint:{request.endpoint}" if getattr(request, "endpoint", "") else "incident:any"


def _incident(request: Any) -> str:
    return f"incident:{request.incident}"


def _endpoint_of(platform: Platform, request: Any) -> str:
    """The endpoint of an incident, where it is about one: rights are on endpoints."""
    endpoint = platform.alarms.incidents.get(request.incident).endpoint
    return f"endpoint:{endpoint}" if endpoint else _incident(request)


OPERATIONS: Final = (
    Operation(name="incident.list", action="incident.read", request=IncidentList, handle=_list, resource=_any, reads=True, summary="List incidents that are not resolved"),
    Operation(name="incident.show", action="incident.read", request=IncidentShow, handle=_show, resource=_incident, of=_endpoint_of, reads=True, summary="Show an incident with its alerts and its timeline"),
    Operation(name="incident.report", action="incident.read", request=IncidentShow, handle=_report, resource=_incident, of=_endpoint_of, reads=True, summary="Draft a post-mortem from the ledger"),
    Operation(name="incident.rehearse", action="incident.read", request=IncidentRehearse, handle=_rehearse, resource=lambda request: f"alert:{request.alert}", reads=True, summary="Say what playbooks would do about an alert, and do nothing"),
    Operation(name="incident.open", action="incident.open", request=IncidentOpen, handle=_open, resource=_any, summary="Open an incident that a person saw"),
    Operation(name="incident.note", action="incident.note", request=IncidentNote, handle=_note, resource=_incident, of=_endpoint_of, summary="Write into the timeline of an incident"),
    Operation(name="incident.assign", action="incident.assign", request=IncidentAssign, handle=_assign, resource=_incident, of=_endpoint_of, summary="Say who answers for an incident"),
    Operation(name="incident.grade", action="incident.grade", request=IncidentGrade, handle=_grade, resource=_incident, of=_endpoint_of, summary="Say how grave an incident is"),
    Operation(name="incident.mitigate", action="incident.mitigate", request=IncidentEnd, handle=_mitigate, resource=_incident, of=_endpoint_of, summary="Say that an incident hurts no longer"),
    Operation(name="incident.resolve", action="incident.resolve", request=IncidentEnd, handle=_resolve, resource=_incident, of=_endpoint_of, summary="Say that an incident is over, and why"),
)  # fmt: skip
