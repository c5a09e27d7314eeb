"""Operations on identity and secrets: who exists, and what proves it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from taut.core.errors import Denied, InvalidInput, NotFound
from taut.core.units import parse_duration
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
from taut.ports.records import transact

Kind = Literal["human", "service"]


class UserAdd(Request, frozen=True):
    principal: str
    roles: tuple[str, ...]
    kind: Kind = "human"
    display: str = ""


class UserName(Request, frozen=True):
    principal: str


class UserRoles(Request, frozen=True):
    principal: str
    roles: tuple[str, ...]


class TokenCreate(Request, frozen=True):
    """enrol: add the principal as this kind where there is none, and the role where he lacks it.

    Without it a principal that nobody knows is added as a service when the caller may administer users; one that is
    known gets no further role.
    """

    principal: str
    roles: tuple[str, ...]
    ttl: str = "15m"
    scopes: tuple[str, ...] = ()
    enrol: Kind | None = None


class TokenExchange(Request, frozen=True):
    """ttl: 1m to 15m. scopes: none for those of what is exchanged."""

    ttl: str = "15m"
    scopes: tuple[str, ...] = ()


class KeyRotate(Request, frozen=True):
    """overlap: for how long the former key is accepted beside the new one."""

    id: str
    overlap: str = "24h"


class TokenRevoke(Request, frozen=True):
    """One token by its id, or all of a principal with his sessions."""

    id: str = ""
    principal: str = ""


class KeyCreate(Request, frozen=True):
    principal: str
    roles: tuple[str, ...]
    name: str = ""
    ttl: str | None = None
    scopes: tuple[str, ...] = ()
    enrol: Kind | None = None


class KeyId(Request, frozen=True):
    id: str


class KeyList(Request, frozen=True):
    principal: str | None = None


class SecretPut(Request, frozen=True):
    name: str
    value: str


class SecretName(Request, frozen=True):
    name: str


def _user_add(platform: Platform, caller: Caller, request: UserAdd, _progress: Progress) -> Json:
    row = platform.identity.create_principal(
        request.principal, kind=request.kind, roles=request.roles, display=request.display, actor=_who(caller)
    )
    return _json(row)


def _user_list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return {"users": to_json(platform.identity.principals())}


def _user_show(platform: Platform, _caller: Caller, request: UserName, _progress: Progress) -> Json:
    return _json(platform.identity.principal(request.principal))


def _user_roles(platform: Platform, caller: Caller, request: UserRoles, _progress: Progress) -> Json:
    return _json(platform.identity.set_roles(request.principal, request.roles, actor=_who(caller)))


def _user_disable(platform: Platform, caller: Caller, request: UserName, _progress: Progress) -> Json:
    return _json(platform.identity.set_disabled(request.principal, True, actor=_who(caller)))


def _user_enable(platform: Platform, caller: Caller, request: UserName, _progress: Progress) -> Json:
    return _json(platform.identity.set_disabled(request.principal, False, actor=_who(caller)))


def _whoami(_platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    session = caller.session
    return {
        "principal": caller.principal.id,
        "kind": caller.principal.kind,
        "roles": list(caller.principal.roles),
        "signed_in": None if session is None else session.method,
        "proved_at": None if session is None else to_json(session.proved_at),
        "expires_at": None if session is None else to_json(session.expires_at),
    }


def _token_create(platform: Platform, caller: Caller, request: TokenCreate, _progress: Progress) -> Json:
    known = _known(platform, request.principal)
    enrol = _enrol(platform, caller, request.enrol, known=known)
    token, expires_at = platform.identity.create_token(
        request.principal, request.roles, parse_duration(request.ttl), scopes=request.scopes,
        enrol=enrol, actor=_who(caller),
    )  # fmt: skip
    return {
        "token": token, "expires_at": to_json(expires_at), "principal": request.principal,
        "enrolled": None if known else enrol,
    }  # fmt: skip


def _token_exchange(platform: Platform, caller: Caller, request: TokenExchange, _progress: Progress) -> Json:
    """A token for oneself, never for more than one has. A token gives none: a stolen one would renew itself for ever."""
    holder, life = caller.principal, parse_duration(request.ttl)
    if holder.credential.startswith("tok_"):
        raise Denied("a token is not exchanged for another: use the session or the key by which it was made")
    if not timedelta(minutes=1) <= life <= timedelta(minutes=15):
        raise InvalidInput(f"an exchanged token lives 1m to 15m, not {request.ttl}")
    wider = sorted(set(request.scopes) - set(holder.scopes)) if holder.scopes else []
    if wider:
        raise Denied(
            f"scope {wider[0]!r} is wider than what is exchanged: choose among {', '.join(holder.scopes)}"
        )
    token, expires_at = platform.identity.create_token(
        holder.id, holder.roles, life, scopes=request.scopes or holder.scopes, actor=holder.id
    )
    return {"token": token, "expires_at": to_json(expires_at), "principal": holder.id, "enrolled": None}


def _key_rotate(platform: Platform, caller: Caller, request: KeyRotate, _progress: Progress) -> Json:
    row, text = platform.identity.rotate_key(
        request.id, overlap=parse_duration(request.overlap), actor=_who(caller)
    )
    return {**_json(row), "key": text, "replaces": request.id, "enrolled": None}


def _token_revoke(platform: Platform, caller: Caller, request: TokenRevoke, _progress: Progress) -> Json:
    if bool(request.id) == bool(request.principal):
        raise InvalidInput(
            "token revoke takes either the id of one token or the principal whose tokens all end"
        )
    if request.id:
        platform.identity.revoke_token(request.id, actor=_who(caller))
    else:
        platform.identity.revoke_tokens(request.principal, actor=_who(caller))
        transact(
            platform.records,
            lambda tx: platform.people.sessions.end_all(tx, request.principal, actor=_who(caller)),
        )
    return {"revoked": request.id or request.principal}


def _key_create(platform: Platform, caller: Caller, request: KeyCreate, _progress: Progress) -> Json:
    life: timedelta | None = None if request.ttl is None else parse_duration(request.ttl)
    known = _known(platform, request.principal)
    enrol = _enrol(platform, caller, request.enrol, known=known)
    row, text = platform.identity.create_key(
        request.principal, request.roles, name=request.name, ttl=life, scopes=request.scopes,
        enrol=enrol, actor=_who(caller),
    )  # fmt: skip
    return {**_json(row), "key": text, "enrolled": None if known else enrol}


def _key_list(platform: Platform, _caller: Caller, request: KeyList, _progress: Progress) -> Json:
    return {"keys": to_json(platform.identity.keys(request.principal))}


def _key_revoke(platform: Platform, caller: Caller, request: KeyId, _progress: Progress) -> Json:
    return _json(platform.identity.revoke_key(request.id, actor=_who(caller)))


def _secret_put(platform: Platform, caller: Caller, request: SecretPut, _progress: Progress) -> Json:
    platform.secrets.put(request.name, request.value)
    _note_secret(platform, caller, "secret.put", request.name)
    return {"secret": request.name}


def _secret_list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return {"secrets": list(platform.secrets.names())}


def _secret_delete(platform: Platform, caller: Caller, request: SecretName, _progress: Progress) -> Json:
    platform.secrets.delete(request.name)
    _note_secret(platform, caller, "secret.deleted", request.name)
    return {"secret": request.name, "deleted": True}


def _note_secret(platform: Platform, caller: Caller, kind: str, name: str) -> None:
    """Leave a leaf with the name alone: a digest of the value could be guessed at."""
    from taut.trust.ledger import Entry

    entry = Entry(kind=kind, subject=f"secret:{name}", actor=_who(caller), body={})
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))


def _who(caller: Caller) -> str:
    return caller.principal.id


def _known(platform: Platform, principal: str) -> bool:
    try:
        platform.identity.principal(principal)
    except NotFound:
        return False
    return True


def _enrol(platform: Platform, caller: Caller, kind: Kind | None, *, known: bool) -> Kind | None:
    """Adding a principal on the way is administration of its own, and decided as such.

    Who may administer need not ask for a new service; a role more for one that exists must be asked for.
    """
    context = {"local": caller.local}
    if kind is not None:
        platform.policy.require(caller.principal, "user.admin", "principal:any", context)
        return kind
    if known or not platform.policy.decide(caller.principal, "user.admin", "principal:any", context).allow:
        return None
    return "service"


def _json(row: msgspec.Struct) -> Json:
    plain: Json = to_json(row)
    return plain


def _principal(request: Any) -> str:
    return f"principal:{request.principal or 'any'}"


def _any_principal(_request: Any) -> str:
    return "principal:any"


def _secret(request: Any) -> str:
    return f"secret:{request.name}"


OPERATIONS: Final = (
    Operation(name="user.add", action="user.admin", request=UserAdd, handle=_user_add, resource=_principal, summary="Add a principal"),
    Operation(name="user.list", action="user.admin", request=Nothing, handle=_user_list, resource=_any_principal, reads=True, summary="List principals"),
    Operation(name="user.show", action="user.admin", request=UserName, handle=_user_show, resource=_principal, reads=True, summary="Show a principal"),
    Operation(name="user.roles", action="user.admin", request=UserRoles, handle=_user_roles, resource=_principal, summary="Give a principal exactly these roles"),
    Operation(name="user.disable", action="user.admin", request=UserName, handle=_user_disable, resource=_principal, summary="Refuse a principal's credentials"),
    Operation(name="user.enable", action="user.admin", request=UserName, handle=_user_enable, resource=_principal, summary="Accept a principal's credentials again"),
    Operation(name="user.whoami", action="account.self", request=Nothing, handle=_whoami, resource=_any_principal, reads=True, summary="Say who you are"),
    Operation(name="token.create", action="token.create", request=TokenCreate, handle=_token_create, resource=_principal, summary="Issue a short-lived token"),
    Operation(name="token.exchange", action="account.self", request=TokenExchange, handle=_token_exchange, resource=lambda _request: "principal:self", summary="Exchange a session or an API key for a short-lived token"),
    Operation(name="token.revoke", action="token.revoke", request=TokenRevoke, handle=_token_revoke, resource=_principal, summary="Revoke a token, or all of a principal"),
    Operation(name="key.create", action="key.admin", request=KeyCreate, handle=_key_create, resource=_principal, summary="Make an API key"),
    Operation(name="key.list", action="key.admin", request=KeyList, handle=_key_list, resource=_principal, reads=True, summary="List API keys"),
    Operation(name="key.rotate", action="key.admin", request=KeyRotate, handle=_key_rotate, resource=lambda request: f"key:{request.id}", summary="Make a key that takes the place of another"),
    Operation(name="key.revoke", action="key.admin", request=KeyId, handle=_key_revoke, resource=lambda request: f"key:{request.id}", summary="Revoke an API key"),
    Operation(name="secret.put", action="secret.admin", request=SecretPut, handle=_secret_put, resource=_secret, summary="Keep a secret"),
    Operation(name="secret.list", action="secret.admin", request=Nothing, handle=_secret_list, resource=lambda _request: "secret:any", reads=True, summary="List names of secrets"),
    Operation(name="secret.delete", action="secret.admin", request=SecretName, handle=_secret_delete, resource=_secret, summary="Delete a secret"),
)  # fmt: skip
