"""Operations on what is watched of models that answer."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import NotFound
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)


class MonitorShow(Request, frozen=True):
    """endpoint: all without one."""

    endpoint: str = ""


def _show(platform: Platform, _caller: Caller, request: MonitorShow, progress: Progress) -> Json:
    """Return figures as of the last look, which is a few seconds old where the platform runs, and is had now where it does not."""
    monitor = platform.watches.monitor(platform)
    if platform.publisher is None:
        progress("reading the prediction log", None)
        monitor.look()
        monitor.close()
    with platform.records.read() as tx:
        live = {route.endpoint: str(route.version) for route in platform.releases.routes(tx)}
    if request.endpoint and request.endpoint not in live:
        raise NotFound(f"nothing is released at {request.endpoint[:80]!r}: look at `taut status`")
    found = []
    for endpoint, version in sorted(live.items()):
        if request.endpoint in ("", endpoint):
            found += _of(monitor, endpoint, version)
    return {"endpoints": found}


def _of(monitor: Any, endpoint: str, version: str) -> list[Json]:
    """Return the figures of each version that answered at an endpoint lately, or why there are none."""
    here = [(place[1], figures) for place, figures in monitor.said.items() if place[0] == endpoint]
    if here:
        unmatched = monitor.unmatched.get(endpoint, 0)
        return [
            {"endpoint": endpoint, "why_not": "", "unmatched": unmatched, **to_json(figures)}
            for _, figures in here
        ]
    why = monitor.blind.get((endpoint, version), "no request has been answered yet")
    return [{"endpoint": endpoint, "version": version, "why_not": why}]


OPERATIONS: Final = (
    Operation(name="monitor.show", action="status.read", request=MonitorShow, handle=_show, resource=lambda request: f"endpoint:{request.endpoint or 'any'}", reads=True, summary="Show drift, faults and quality of what models are asked and answer"),
)  # fmt: skip
