"""Who calls the control API: by a bearer, by the console's cookie, over the installation's own socket, or as a part by its SVID."""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from taut.core.errors import Denied, Unauthenticated
from taut.entrypoints.operations.operation import NOBODY, Caller, Platform
from taut.entrypoints.peers import Part, Peer
from taut.entrypoints.whose import caller_of, owner_caller

COOKIE: Final = "__Host-taut"
"""Name of the console's cookie: browsers take it over TLS (or from localhost) alone, for this host alone."""

CONSOLE: Final = "taut-console"
"""A header that the console's own pages send. A page from elsewhere cannot without a preflight, which nobody answers."""


def authenticate(platform: Platform, request: Request) -> Caller:
    """Return who calls. Raises Unauthenticated when nothing proves it, Denied for a cookie that another site sent along."""
    header = request.headers.get("authorization", "")
    client = request.scope.get("client")
    if isinstance(client, Part):
        machine = platform.parts.machines.accept(client.svid)
        return Caller(principal=machine, address=client.address, part=str(client.svid.id))
    local = isinstance(client, Peer)
    if len(request.headers.getlist("authorization")) > 1:
        raise Unauthenticated("the Authorization header came more than once: send it once")
    if header:
        scheme, _, bearer = header.partition(" ")
        if scheme.lower() != "bearer" or not bearer.strip():
            raise Unauthenticated("the Authorization header is not understood: send `Bearer TOKEN`")
        return caller_of(platform, bearer.strip(), local=local, address=address_of(request))
    if secret := request.cookies.get(COOKIE):
        require_own_page(request)
        return caller_of(platform, secret, local=local, address=address_of(request))
    if isinstance(client, Peer) and client.uid in (os.stat(platform.home).st_uid, 0):
        return owner_caller(platform, break_glass=request.headers.get("taut-break-glass", ""))
    raise Unauthenticated("no identity came with the request: send `Authorization: Bearer TOKEN`")


def stranger(request: Request) -> Caller:
    """Return the caller of an open operation: nobody yet, from this address."""
    local = isinstance(request.scope.get("client"), Peer)
    return Caller(principal=NOBODY, local=local, address=address_of(request))


def address_of(request: Request) -> str:
    """Address of the machine that calls; empty over the installation's own socket."""
    client = request.scope.get("client")
    return "" if isinstance(client, Peer) or client is None else str(client[0])


def set_cookie(response: Response, secret: str, *, max_age_s: int) -> None:
    """Hand a session to a browser in a way in which no script can read it and no other site can use it."""
    response.headers.append(
        "set-cookie", f"{COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={max_age_s}"
    )


def clear_cookie(response: Response) -> None:
    set_cookie(response, "", max_age_s=0)


def require_own_page(request: Request) -> None:
    """Raise Denied unless one of our own pages sent this: three signs, since old browsers lack some of them."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    own: Any = request.headers.get("host", "")
    foreign = (
        CONSOLE not in request.headers
        or (site is not None and site != "same-origin")
        or (origin is not None and urlsplit(origin).netloc != own)
    )
    if foreign:
        raise Denied(
            f"sessions by cookie are for the console's own pages, which send {CONSOLE}: 1; programs use a bearer"
        )
