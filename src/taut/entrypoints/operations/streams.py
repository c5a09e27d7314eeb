"""Operations of stream serving: leave to run a stream, and to look at one.

The stream itself runs in the process that asked, beside the gateways; its broker is reached from there, with the
credentials that its operator gave. What control decides is who may, and with which identity it asks the endpoint.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)

PRINCIPAL: Final = "stream"
LIFE_S: Final = 3600
"""How long a stream's token lives; it asks for the next one in time."""


class StreamBegin(Request, frozen=True):
    """broker: its address without a password. renew: a stream that runs asks for its next token."""

    endpoint: str
    broker: str
    source: str
    target: str
    dead_letters: str
    group: str
    replay: bool = False
    renew: bool = False


class StreamLook(Request, frozen=True):
    """dead_letters: their contents are asked for, not their number alone."""

    endpoint: str
    dead_letters: bool = False


def _begin(platform: Platform, caller: Caller, request: StreamBegin, _progress: Progress) -> Json:
    from taut.ports.records import transact
    from taut.trust.ledger import Entry

    if not request.renew:
        body = {name: getattr(request, name) for name in request.__struct_fields__ if name != "renew"}
        entry = Entry(
            kind="stream.begun", subject=f"endpoint:{request.endpoint}", actor=caller.principal.id, body=body
        )
        transact(platform.records, lambda tx: platform.ledger.append(tx, entry))
    token, expires_at = platform.identity.create_token(
        PRINCIPAL, ("predictor",), timedelta(seconds=LIFE_S), scopes=(f"predict@endpoint:{request.endpoint}",),
        enrol="service", actor=caller.principal.id,
    )  # fmt: skip
    return {"token": token, "expires_at": to_json(expires_at), "principal": PRINCIPAL}


def _look(_platform: Platform, _caller: Caller, request: StreamLook, _progress: Progress) -> Json:
    return {"endpoint": request.endpoint, "may": True}


def _endpoint(request: Any) -> str:
    return f"endpoint:{request.endpoint or 'any'}"


OPERATIONS: Final = (
    Operation(name="stream.begin", action="stream.run", request=StreamBegin, handle=_begin, resource=_endpoint, summary="Get leave and a token to run a stream"),
    Operation(name="stream.look", action="stream.read", request=StreamLook, handle=_look, resource=_endpoint, reads=True, summary="Get leave to look at a stream and what it put aside"),
)  # fmt: skip
