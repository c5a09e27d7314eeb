"""Operations on what endpoints promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taut.core.errors import NotFound
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)
from taut.project.declared import endpoint_of

if TYPE_CHECKING:
    from taut.lifecycle.objectives import Standing


class SloShow(Request, frozen=True):
    """endpoint: all without one."""

    endpoint: str = ""


def _show(platform: Platform, _caller: Caller, request: SloShow, _progress: Progress) -> Json:
    if request.endpoint:
        endpoint_of(
            platform.plans.require(), request.endpoint
        )  # says which there are, where there is none of that name
    standings = platform.watches.standings(platform)
    return {
        "objectives": [
            standing_json(one) for one in standings if request.endpoint in ("", one.objective.endpoint)
        ]
    }


def _export(platform: Platform, _caller: Caller, request: SloShow, _progress: Progress) -> Json:
    from taut.project.openslo import write_openslo

    manifest = platform.plans.require()
    wanted = (endpoint_of(manifest, request.endpoint),) if request.endpoint else manifest.endpoints
    found = [write_openslo(one.slo, one.name) for one in wanted if one.slo is not None]
    if not found:
        raise NotFound("nothing is promised there: declare slo=taut.SLO(availability=0.999)")
    return {"openslo": "---\n".join(found)}


def _dashboards(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    from taut.entrypoints.dashboards import dashboard_files

    return {"files": dashboard_files(platform.plans.require())}


def standing_json(standing: Standing) -> Json:
    """Return how an objective stands, with its promise in words."""
    objective = standing.objective
    return {
        "endpoint": objective.endpoint, "objective": objective.name, "promise": objective.words, "state": standing.state,
        "target": objective.target, "limit": objective.limit or None, "window_s": objective.window_s,
        "freezes": objective.freeze, "budget": to_json(standing.budget), "burns": to_json(standing.burns),
    }  # fmt: skip


OPERATIONS: Final = (
    Operation(name="slo.export", action="plan.read", request=SloShow, handle=_export, resource=lambda request: f"endpoint:{request.endpoint or 'any'}", reads=True, summary="Write what endpoints promise as OpenSLO"),
    Operation(name="dashboards.export", action="plan.read", request=Nothing, handle=_dashboards, resource=lambda _request: "endpoint:any", reads=True, summary="Write rules for Prometheus and dashboards for Grafana"),
    Operation(name="slo.show", action="status.read", request=SloShow, handle=_show, resource=lambda request: f"endpoint:{request.endpoint or 'any'}", reads=True, summary="Show what endpoints promise, and how much of what they may miss is used up"),
)  # fmt: skip
