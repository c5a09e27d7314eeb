"""Operations by which people sign in and out, and look after what they sign in with."""

from __future__ import annotations

from typing import Any, Final, Literal

from taut.core.errors import InvalidInput, Unauthenticated
from taut.core.units import parse_duration
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    require_fresh,
    to_json,
)
from taut.ports.records import transact

SessionKind = Literal["console", "command"]


class SessionStart(Request, frozen=True):
    """code: of the authenticator app or a recovery code. kind: a console's session comes as a cookie."""

    principal: str
    password: str
    code: str = ""
    kind: SessionKind = "command"


class SessionAccept(Request, frozen=True):
    """Sets the password by an invitation, and signs in."""

    principal: str
    invitation: str
    password: str
    code: str = ""
    kind: SessionKind = "command"


class OidcBegin(Request, frozen=True):
    """redirect_uri: where the answer comes back; on loopback for a command, at TAUT_ORIGIN for the console."""

    redirect_uri: str
    kind: SessionKind = "command"


class OidcFinish(Request, frozen=True):
    """handle: of `oidc.begin`. state, code, iss: as they came back. kind: as it was begun."""

    handle: str
    state: str
    code: str
    iss: str | None = None
    kind: SessionKind = "command"


class UserLink(Request, frozen=True):
    """subject: the provider's `sub` of the person."""

    principal: str
    subject: str


class SessionList(Request, frozen=True):
    principal: str | None = None


class SessionRevoke(Request, frozen=True):
    """One session by its id, or all of a person."""

    id: str = ""
    principal: str = ""


class AccountPassword(Request, frozen=True):
    current: str
    new: str


class TotpConfirm(Request, frozen=True):
    code: str


class UserInvite(Request, frozen=True):
    principal: str
    ttl: str = "24h"


class UserReset(Request, frozen=True):
    principal: str


def started(found: Any) -> Json:
    """What a sign-in returns; `session` is the bearer, shown once."""
    session = found.session
    return {
        "session": found.secret, "principal": session.principal.id, "roles": list(session.principal.roles),
        "kind": session.kind, "method": session.method, "expires_at": to_json(session.expires_at),
    }  # fmt: skip


def _start(platform: Platform, caller: Caller, request: SessionStart, _progress: Progress) -> Json:
    return started(
        platform.people.accounts.sign_in(
            request.principal, request.password, code=request.code, address=caller.address, kind=request.kind
        )
    )


def _accept(platform: Platform, caller: Caller, request: SessionAccept, _progress: Progress) -> Json:
    return started(
        platform.people.accounts.accept(
            request.principal, request.invitation, request.password, code=request.code,
            address=caller.address, kind=request.kind,
        )
    )  # fmt: skip


def _oidc_begin(platform: Platform, caller: Caller, request: OidcBegin, _progress: Progress) -> Json:
    url, handle = platform.people.federation.begin(
        request.redirect_uri, kind=request.kind, address=caller.address
    )
    return {"authorization_url": url, "handle": handle}


def _oidc_finish(platform: Platform, _caller: Caller, request: OidcFinish, _progress: Progress) -> Json:
    return started(
        platform.people.federation.finish(
            request.handle, state=request.state, code=request.code, issuer=request.iss, kind=request.kind
        )
    )


def _link(platform: Platform, caller: Caller, request: UserLink, _progress: Progress) -> Json:
    platform.people.federation.link(request.principal, request.subject, actor=caller.principal.id)
    return {"principal": request.principal, "linked": True}


def _end(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    session = own_session(caller)
    platform.people.sessions.end(session.id, actor=caller.principal.id)
    return {"ended": session.id}


def _list(platform: Platform, _caller: Caller, request: SessionList, _progress: Progress) -> Json:
    return {"sessions": [_shown(session) for session in platform.people.sessions.list(request.principal)]}


def _revoke(platform: Platform, caller: Caller, request: SessionRevoke, _progress: Progress) -> Json:
    if bool(request.id) == bool(request.principal):
        raise InvalidInput(
            "session revoke takes either the id of one session or the person whose sessions all end"
        )
    sessions, actor = platform.people.sessions, caller.principal.id
    if request.id:
        sessions.end(request.id, actor=actor)
        return {"ended": 1}
    platform.identity.principal(request.principal)
    return {
        "ended": transact(platform.records, lambda tx: sessions.end_all(tx, request.principal, actor=actor))
    }


def _account(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    own = own_session(caller).principal.id
    return {
        "principal": own, "factors": to_json(platform.people.accounts.factors(own)),
        "passkeys": to_json(platform.people.passkeys.of(own)),
        "sessions": [_shown(session) for session in platform.people.sessions.list(own)],
    }  # fmt: skip


def _password(platform: Platform, caller: Caller, request: AccountPassword, _progress: Progress) -> Json:
    own = own_session(caller).principal.id
    platform.people.accounts.change_password(own, request.current, request.new, address=caller.address)
    return {"principal": own, "changed": True}


def _totp_begin(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    own = fresh_session(platform, caller, "totp.begin").principal.id
    return {"principal": own, **to_json(platform.people.accounts.begin_totp(own))}


def _totp_confirm(platform: Platform, caller: Caller, request: TotpConfirm, _progress: Progress) -> Json:
    own = fresh_session(platform, caller, "totp.confirm").principal.id
    found = platform.people.accounts.confirm_totp(own, request.code, address=caller.address)
    return {"principal": own, "recovery_codes": list(found)}


def _totp_remove(platform: Platform, caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    own = fresh_session(platform, caller, "totp.remove").principal.id
    platform.people.accounts.remove_totp(own, actor=own)
    return {"principal": own, "removed": True}


def _invite(platform: Platform, caller: Caller, request: UserInvite, _progress: Progress) -> Json:
    code, expires_at = platform.people.accounts.invite(
        request.principal, ttl=parse_duration(request.ttl), actor=caller.principal.id
    )
    return {"principal": request.principal, "invitation": code, "expires_at": expires_at}


def _reset(platform: Platform, caller: Caller, request: UserReset, _progress: Progress) -> Json:
    actor = caller.principal.id
    platform.identity.principal(request.principal)
    platform.people.accounts.remove_totp(request.principal, actor=actor)
    platform.people.passkeys.remove(request.principal, None, actor=actor)
    transact(
        platform.records, lambda tx: platform.people.sessions.end_all(tx, request.principal, actor=actor)
    )
    return {
        "principal": request.principal,
        "factors": to_json(platform.people.accounts.factors(request.principal)),
    }


def own_session(caller: Caller) -> Any:
    """Return the session of the caller. Raises Unauthenticated where he came by a token, a key or the files."""
    if caller.session is None:
        raise Unauthenticated("this is for people who are signed in: sign in with `taut login`")
    return caller.session


def fresh_session(platform: Platform, caller: Caller, what: str) -> Any:
    """Return the session of a caller who proved a short while ago who he is: what he signs in with is about to change."""
    session = own_session(caller)
    require_fresh(platform, caller, what)
    return session


def _shown(session: Any) -> Json:
    plain: Json = to_json(session)
    return {**plain, "principal": session.principal.id}


def own(_request: Any) -> str:
    return "principal:self"


def _principal(request: Any) -> str:
    return f"principal:{request.principal or 'any'}"


OPERATIONS: Final = (
    Operation(name="session.start", action="account.self", request=SessionStart, handle=_start, resource=own, open=True, summary="Sign in with a password"),
    Operation(name="session.accept", action="account.self", request=SessionAccept, handle=_accept, resource=own, open=True, summary="Set a password by an invitation and sign in"),
    Operation(name="oidc.begin", action="account.self", request=OidcBegin, handle=_oidc_begin, resource=own, open=True, summary="Begin to sign in by the identity provider"),
    Operation(name="oidc.finish", action="account.self", request=OidcFinish, handle=_oidc_finish, resource=own, open=True, summary="Sign in by what the identity provider answered"),
    Operation(name="user.link", action="user.admin", request=UserLink, handle=_link, resource=_principal, summary="Let an account of the identity provider be a person here"),
    Operation(name="session.end", action="account.self", request=Nothing, handle=_end, resource=own, summary="Sign out"),
    Operation(name="session.list", action="user.admin", request=SessionList, handle=_list, resource=_principal, reads=True, summary="List who is signed in"),
    Operation(name="session.revoke", action="user.admin", request=SessionRevoke, handle=_revoke, resource=_principal, summary="End a session, or all of a person"),
    Operation(name="account.show", action="account.self", request=Nothing, handle=_account, resource=own, reads=True, summary="Show what you sign in with, and your sessions"),
    Operation(name="account.password", action="account.self", request=AccountPassword, handle=_password, resource=own, summary="Change your password"),
    Operation(name="totp.begin", action="account.self", request=Nothing, handle=_totp_begin, resource=own, summary="Begin to use an authenticator app"),
    Operation(name="totp.confirm", action="account.self", request=TotpConfirm, handle=_totp_confirm, resource=own, summary="Ask for codes from now on"),
    Operation(name="totp.remove", action="account.self", request=Nothing, handle=_totp_remove, resource=own, summary="Ask for no codes any more"),
    Operation(name="user.invite", action="user.admin", request=UserInvite, handle=_invite, resource=_principal, summary="Let a person set his password"),
    Operation(name="user.reset", action="user.admin", request=UserReset, handle=_reset, resource=_principal, summary="Take a person's second factors and passkeys away and end his sessions"),
)  # fmt: skip
