"""Operations on passkeys: a browser's console adds them and signs in by them."""

from __future__ import annotations

from typing import Any, Final

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
from taut.entrypoints.operations.sessions import SessionKind, fresh_session, own, started


class PasskeyAdd(Request, frozen=True):
    """handle: of `passkey.begin`. response: of `navigator.credentials.create`, as its `toJSON` gives it."""

    handle: str
    response: dict[str, Any]
    name: str


class PasskeyEnter(Request, frozen=True):
    """handle: of `passkey.challenge`. response: of `navigator.credentials.get`, as its `toJSON` gives it."""

    handle: str
    response: dict[str, Any]
    kind: SessionKind = "command"


class PasskeyId(Request, frozen=True):
    id: str


def _begin(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    session = fresh_session(platform, caller, "passkey.begin")
    options, handle = platform.people.passkeys.begin(session.principal.id)
    return {"options": options, "handle": handle}


def _add(platform: Platform, caller: Caller, request: PasskeyAdd, _progress: Progress) -> Json:
    session = fresh_session(platform, caller, "passkey.add")
    made = platform.people.passkeys.finish(
        session.principal.id, request.handle, request.response, name=request.name
    )
    return {"passkey": to_json(made)}


def _remove(platform: Platform, caller: Caller, request: PasskeyId, _progress: Progress) -> Json:
    session = fresh_session(platform, caller, "passkey.remove")
    platform.people.passkeys.remove(session.principal.id, request.id, actor=session.principal.id)
    return {"passkey": request.id, "removed": True}


def _challenge(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    options, handle = platform.people.passkeys.challenge(address=caller.address)
    return {"options": options, "handle": handle}


def _enter(platform: Platform, _caller: Caller, request: PasskeyEnter, _progress: Progress) -> Json:
    return started(platform.people.passkeys.enter(request.handle, request.response, kind=request.kind))


OPERATIONS: Final = (
    Operation(name="passkey.begin", action="account.self", request=Nothing, handle=_begin, resource=own, summary="Begin to add a passkey"),
    Operation(name="passkey.add", action="account.self", request=PasskeyAdd, handle=_add, resource=own, summary="Add a passkey"),
    Operation(name="passkey.remove", action="account.self", request=PasskeyId, handle=_remove, resource=own, summary="Forget a passkey"),
    Operation(name="passkey.challenge", action="account.self", request=Nothing, handle=_challenge, resource=own, open=True, summary="Begin to sign in by a passkey"),
    Operation(name="passkey.enter", action="account.self", request=PasskeyEnter, handle=_enter, resource=own, open=True, summary="Sign in by a passkey"),
)  # fmt: skip
