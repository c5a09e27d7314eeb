"""Operations on the keys of the installation itself: how old they are, and new ones."""

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


class KeysRotate(Request, frozen=True):
    """key: `tenant`, or a purpose of keys; `keys.list` names them."""

    key: str


def _list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    from taut.workflows.rotation import states

    now = platform.clock.now()
    found = [
        {**to_json(state), "age_days": None if state.since is None else max(0, (now - state.since).days)}
        for state in states(platform)
    ]
    return {"holder": platform.config.keys.partition(":")[0].partition("+")[0], "keys": found}


def _rotate(platform: Platform, caller: Caller, request: KeysRotate, progress: Progress) -> Json:
    from taut.workflows.rotation import rotate

    state: Json = to_json(rotate(platform, request.key, actor=caller.principal.id, progress=progress))
    return state


def _any(_request: Any) -> str:
    return "keys:any"


def _key(request: Any) -> str:
    return f"keys:{request.key}"


OPERATIONS: Final = (
    Operation(name="keys.list", action="keys.read", request=Nothing, handle=_list, resource=_any, reads=True, summary="List the installation's own keys"),
    Operation(name="keys.rotate", action="keys.rotate", request=KeysRotate, handle=_rotate, resource=_key, summary="Make a new version of one of the installation's own keys"),
)  # fmt: skip
