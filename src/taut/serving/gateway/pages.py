"""Everything of the data plane that is no inference: health, metadata, and why a gateway is not ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final, NamedTuple

from taut.core.errors import NotFound, TautError, Unavailable
from taut.ports.online import OnlineReader
from taut.serving.errors import MethodNotAllowed
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.gateway.guard import Guard, Session, check_fresh
from taut.serving.gateway.replies import Reply, ok
from taut.serving.gateway.scoring import Scoring
from taut.serving.gateway.tensors import metadata
from taut.serving.predictions import PredictionLog

_PROBE: Final = "\x00probe"  # no entity has this key


class Page(NamedTuple):
    """A document and its status."""

    document: object
    status: int = 200


def reply(page: Page, *, request_id: str, epoch: int) -> Reply:
    made = ok(page.document, request_id=request_id, epoch=epoch)
    return made._replace(status=page.status)


class Visit(NamedTuple):
    """A request for a page, and what it is answered from."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    active: Active | None
    guard: Guard | None
    now_us: int
    reasons: Callable[[], list[str]]
    version: str
    scoring: Scoring


def find(visit: Visit) -> Page:
    """Return the page. Raises NotFound for no path of the data plane, and what the path's own rules say."""
    parts = visit.path.strip("/").split("/")
    page: Page | None = None
    if visit.path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        need_method(visit.method, ("GET", "HEAD"))
        page = _open_page(visit)
    elif parts[:2] == ["v2", "models"] and 3 <= len(parts) <= 6:
        page = _model_page(visit, parts[2], parts[3:])
    elif parts[:2] == ["v1", "predict"] and len(parts) == 3:
        open_endpoint(visit, parts[2])
        need_method(visit.method, ("POST",))
    elif parts[:2] == ["v2", "repository"] or parts == ["v1", "feedback"]:
        need_method(visit.method, ("POST",))
    if page is None:
        raise NotFound(f"{visit.path[:200]!r} is no path of the data plane: see /v2")
    return page


def _open_page(visit: Visit) -> Page:
    if visit.path == "/v2":
        return Page(
            {
                "name": "taut",
                "version": visit.version,
                "extensions": ["binary_tensor_data", "model_repository"],
            }
        )
    if visit.path == "/v2/health/live":
        return Page({"live": True})
    why = visit.reasons()
    active = visit.active
    weak = (
        [] if active is None else [said for one in active.answering for said in visit.scoring.degraded(one)]
    )
    if why:
        return Page({"ready": False, "reasons": why}, 503)
    return Page({"ready": True, "degraded": weak} if weak else {"ready": True})


def _model_page(visit: Visit, name: str, rest: list[str]) -> Page | None:
    endpoint = open_endpoint(visit, name)
    if rest[:1] == ["versions"] and len(rest) >= 2:
        if rest[1] != endpoint.number:
            raise NotFound(
                f"version {rest[1][:20]!r} of {endpoint.name!r} is not served: version {endpoint.number} is"
            )
        rest = rest[2:]
    if rest == ["infer"]:
        need_method(visit.method, ("POST",))
        return None
    need_method(visit.method, ("GET", "HEAD"))
    if not rest:
        return Page(metadata(endpoint.name, endpoint.config.live.version, endpoint.signature))
    if rest == ["ready"]:
        why = [*visit.reasons(), *endpoint_reasons(visit.scoring, endpoint, visit.now_us)]
        document = {
            "name": endpoint.name,
            "ready": not why,
            "reasons": why,
            "model": endpoint.resident.state,
            "degraded": visit.scoring.degraded(endpoint),
            "breakers": visit.scoring.breakers(endpoint),
        }
        return Page(document, 503 if why else 200)
    return None


def open_gateway(visit: Visit) -> tuple[Active, Guard, Session]:
    """Return what serves now, and who asks. Raises Unavailable before there is a snapshot, Unauthenticated."""
    active, guard = visit.active, visit.guard
    if active is None or guard is None:
        raise Unavailable(f"the gateway is not ready: {'; '.join(visit.reasons()) or 'no snapshot'}")
    return active, guard, guard.identify(visit.headers.get(b"authorization"), visit.now_us)


def open_endpoint(visit: Visit, name: str) -> Endpoint:
    """Return an endpoint that the caller may use. Identity comes first, so that strangers cannot list names."""
    active, guard, session = open_gateway(visit)
    endpoint = active.endpoints.get(name)
    if endpoint is None:
        near = get_close_matches(name, list(active.endpoints), n=1)
        hint = "check its name, and that it was released"
        if near and active.policy.decide(session.principal, "predict", f"endpoint:{near[0]}").allow:
            hint = f"did you mean {near[0]!r}?"
        raise NotFound(f"endpoint {name[:80]!r} is not served here: {hint}")
    guard.authorise(session, endpoint, visit.now_us)
    return endpoint


def need_method(method: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise MethodNotAllowed(f"{method[:20]} is not for this path: use {' or '.join(allowed)}")


def not_ready(
    active: Active | None, log: PredictionLog, online: OnlineReader | None, now_us: int, *, refused: str
) -> list[str]:
    """Return every reason why a gateway must get no traffic, in words."""
    why: list[str] = []
    try:
        log.check()
    except TautError as error:
        why.append(error.message)
    if active is None:
        why.append(f"no snapshot: {refused or 'control has not issued one yet'}")
        return why
    if now_us > active.stale_us:
        why.append(f"the snapshot of epoch {active.epoch} is older than it may be served: restart control")
    return why + _store_reasons(active, online)


def lane_reasons(active: Active | None) -> list[str]:
    """Return which live versions have workers, and none that is ready."""
    endpoints = () if active is None else active.answering
    lanes = [(endpoint, lane) for endpoint in endpoints for lane in endpoint.resident.required_lanes]
    return [
        f"endpoint {endpoint.name!r}: no worker of {lane.name} is ready"
        for endpoint, lane in lanes
        if not lane.alive
    ]


def _store_reasons(active: Active, online: OnlineReader | None) -> list[str]:
    """Read once from the feature store, as a request would; one over the network is watched by the probe, away from the loop."""
    for endpoint in active.answering:
        for lookup in endpoint.lookups:
            if online is None:
                return [f"endpoint {endpoint.name!r} needs online features, and there is no store"]
            if not online.local:
                continue
            try:
                online.get_now(lookup.feature_set, (_PROBE,) * len(lookup.keys))
            except TautError as error:
                return [f"online features: {error.message}"]
    return []


def endpoint_reasons(scoring: Scoring, endpoint: Endpoint, now_us: int) -> list[str]:
    """Return why one endpoint must get no traffic, beside the reasons of the whole gateway."""
    why = scoring.endpoint_reasons(endpoint)
    try:
        check_fresh(endpoint, now_us)
    except TautError as error:
        why.append(error.message)
    return why


def endpoints_not_ready(active: Active | None, scoring: Scoring, now_us: int) -> dict[str, tuple[str, ...]]:
    """Return why endpoints are not ready, by their names; those that are have none."""
    found = {
        endpoint.name: tuple(endpoint_reasons(scoring, endpoint, now_us))
        for endpoint in (() if active is None else active.endpoints.values())
    }
    return {name: why for name, why in found.items() if why}
