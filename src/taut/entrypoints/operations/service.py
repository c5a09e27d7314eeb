"""One service at a glance: what answers, how well, what is promised and kept, what is wrong, and who changed what."""

from __future__ import annotations

from typing import Final

from taut.core.errors import Denied, NotFound
from taut.entrypoints.operations.objectives import standing_json
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
from taut.entrypoints.operations.releases import ReleaseOf, release_status
from taut.entrypoints.operations.status import not_ready
from taut.project.declared import endpoint_of

_CHANGES: Final = 5


class ServiceShow(Request, frozen=True):
    endpoint: str


def _show(platform: Platform, caller: Caller, request: ServiceShow, progress: Progress) -> Json:
    from taut.workflows.freezes import freezes

    name = request.endpoint
    spec = endpoint_of(platform.plans.require(), name)
    standings = platform.watches.standings(
        platform
    )  # counts what happened by now, of which traffic is a part
    return {
        "endpoint": name, "model": spec.model, "description": spec.description,
        "live": _live(platform, name),
        "release": _under_way(platform, caller, name, progress),
        "frozen": list(freezes(platform, name)),
        "not_ready": [one for one in not_ready(platform) if one["endpoint"] in (name, None)],
        "traffic": to_json(platform.watches.objectives(platform).traffic(name)),
        "objectives": [standing_json(one) for one in standings if one.objective.endpoint == name],
        "model_state": _model(platform, name),
        "alerts": _alerts(platform, caller, name),
        "changes": _changes(platform, caller, name),
    }  # fmt: skip


def _live(platform: Platform, name: str) -> Json | None:
    with platform.records.read() as tx:
        route = next((one for one in platform.releases.routes(tx) if one.endpoint == name), None)
    if route is None:
        return None
    info = platform.releases.show(route.release)
    return {
        "version": str(route.version),
        "release": route.release,
        "since": info.started_at.isoformat(),
        "by": info.actor,
    }


def _under_way(platform: Platform, caller: Caller, name: str, progress: Progress) -> Json | None:
    """Return how the release under way stands: its weight, its step, what it waits for."""
    if not _may(platform, caller, "release.read", f"endpoint:{name}"):
        return None
    try:
        found = release_status(platform, caller, ReleaseOf(endpoint=name), progress)
    except NotFound:
        return None
    return found if found["state"] == "started" else None


def _model(platform: Platform, name: str) -> list[Json]:
    """Return what is known of each version that answered lately: drift, faults, quality."""
    watching = platform.watches.monitoring
    said = {} if watching is None else watching.said
    return [
        {
            "version": version,
            "rows": figures.rows,
            "drifted": [one.column for one in figures.columns if one.state == "drifted"],
            "faulty": [one.column for one in figures.columns if one.faulty],
            "right": figures.quality.right, "outcomes": figures.quality.labelled, "estimated": figures.quality.estimated,
            "stale_s": figures.stale_s,
        }
        for (endpoint, version), figures in said.items()
        if endpoint == name
    ]  # fmt: skip


def _alerts(platform: Platform, caller: Caller, name: str) -> list[Json] | None:
    """Return open alerts about an endpoint; None to who may not see alerts."""
    if not _may(platform, caller, "alert.read", "alert:any"):
        return None
    found = platform.watches.findings.list(state="open", limit=1000)
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "severity": one.severity,
            "since": one.since.isoformat(),
            "summary": one.summary,
        }
        for one in found
        if one.resource == f"endpoint:{name}"
    ]


def _changes(platform: Platform, caller: Caller, name: str) -> list[Json] | None:
    """Return the last releases, with who and why; None to who may not see releases."""
    if not _may(platform, caller, "release.read", f"endpoint:{name}"):
        return None
    return [
        {
            "release": one.release, "version": one.version, "strategy": one.strategy, "state": str(one.state), "by": one.actor,
            "reason": one.reason, "at": one.started_at.isoformat(),
        }
        for one in platform.releases.history(name, limit=_CHANGES)
    ]  # fmt: skip


def _may(platform: Platform, caller: Caller, action: str, resource: str) -> bool:
    """Whether a caller may see a part; the page is shown without it otherwise."""
    context = {
        "single_user": is_single_user(platform), "plane": "control", "local": caller.local, "now": platform.clock.now(),
    }  # fmt: skip
    try:
        platform.policy.require(caller.principal, action, resource, context)
    except Denied:
        return False
    return True


OPERATIONS: Final = (
    Operation(name="service.show", action="status.read", request=ServiceShow, handle=_show, resource=lambda request: f"endpoint:{request.endpoint}", reads=True, summary="Show one service at a glance"),
)  # fmt: skip
