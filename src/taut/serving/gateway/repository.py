"""The model repository extension of the protocol: what is in memory, and an operator's word on it.

An endpoint is shown under its own name with the version that is live on it. To unload a model takes it out of memory; the
next request loads it again, since what is served is decided by releases alone.
Source: Triton Inference Server, protocol extension `model_repository`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import Denied, InvalidInput, NotFound, Unavailable
from taut.serving.errors import Malformed
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.gateway.guard import Guard, Session
from taut.serving.gateway.pages import Page, Visit, open_endpoint

REPOSITORY: Final = "/v2/repository/"
_STATES: Final = {"loaded": "READY", "loading": "LOADING", "on demand": "UNAVAILABLE"}


async def answer(visit: Visit, body: bytes) -> Page:
    """Answer `index`, `models/NAME/load` and `models/NAME/unload`.

    index: those that the caller may ask; to load and unload takes `fleet.scale`. Raises NotFound for any other path,
    Denied, Unavailable when the model is not loaded, or free, within the request's time.
    """
    parts = visit.path.removeprefix(REPOSITORY).split("/")
    if parts == ["index"]:
        return Page(_index(visit, _document(body)))
    if len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload"):
        given = _document(body).get("parameters")
        if given and parts[2] == "load":  # to unload, Triton's clients say that they mean no dependents
            raise InvalidInput("a model is loaded as it was released: leave out parameters")
        await _change(visit, parts[1], load=parts[2] == "load")
        return Page({})
    raise NotFound(f"{visit.path[:200]!r} is no path of the data plane: see /v2")


def _index(visit: Visit, asked: dict[str, Any]) -> list[dict[str, str]]:
    active, _, session = _caller(visit)
    found = []
    for endpoint in active.endpoints.values():
        if not active.policy.decide(session.principal, "predict", endpoint.resource).allow:
            continue
        resident = endpoint.resident
        state = _STATES[resident.state]
        if state == "READY" or asked.get("ready") is not True:
            reason = "" if state == "READY" else resident.fault or resident.state
            found.append(
                {"name": endpoint.name, "version": endpoint.number, "state": state, "reason": reason}
            )
    return found


async def _change(visit: Visit, name: str, *, load: bool) -> None:
    active, guard, session = _caller(visit)
    endpoint: Endpoint = open_endpoint(visit, name)
    decision = active.policy.decide(session.principal, "fleet.scale", endpoint.resource)
    if not decision.allow:
        said = f"{session.principal.id} may not load or unload {endpoint.resource}: {'; '.join(decision.reasons)}"
        raise Denied(f"{said}. Ask for the role operator")
    timeout_s = guard.read_headers(visit.headers).deadline_ms / 1e3
    if active.residents is None:
        raise InvalidInput("this gateway keeps all models in memory: there is nothing to load or unload")
    if load:
        await active.residents.load(endpoint.resident, timeout_s=timeout_s)
    else:
        await active.residents.unload(endpoint.resident, timeout_s=timeout_s)


def _caller(visit: Visit) -> tuple[Active, Guard, Session]:
    if visit.active is None or visit.guard is None:
        raise Unavailable(f"the gateway is not ready: {'; '.join(visit.reasons()) or 'no snapshot'}")
    session = visit.guard.identify(visit.headers.get(b"authorization"), visit.now_us)
    return visit.active, visit.guard, session


def _document(body: bytes) -> dict[str, Any]:
    """Return the request's document; an empty body is an empty one."""
    try:
        found: dict[str, Any] = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Malformed(f"the body is no JSON object ({error}): send {{}} or nothing") from error
    return found
