"""The two addresses at which a browser goes to the identity provider and comes back from it."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from taut.core.errors import Unauthenticated
from taut.entrypoints.callers import set_cookie, stranger
from taut.entrypoints.operations import OperationTable, perform
from taut.entrypoints.operations.operation import Platform
from taut.trust.signin.ceremonies import LIFE as WAY
from taut.trust.signin.sessions import LIFE

_WAY_COOKIE: Final = "__Host-taut-oidc"
"""Ties the answer to the browser that asked. Lax, since it has to come along when the provider sends the browser back."""


def pages(platform: Platform, table: OperationTable) -> tuple[Route, Route]:
    """Return `/oidc/login` and `/oidc/callback`; both do what the operations `oidc.begin` and `oidc.finish` do."""

    def do(request: Request, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return perform(table, platform, stranger(request), name, {**body, "kind": "console"}, _silent)

    def login(request: Request) -> Response:
        uri = f"{platform.config.origin.rstrip('/')}/oidc/callback"
        begun = do(request, "oidc.begin", {"redirect_uri": uri})
        response = RedirectResponse(begun["authorization_url"], status_code=303, headers=_HEADERS)
        _set_way(response, begun["handle"], max_age_s=int(WAY.total_seconds()))
        return response

    def callback(request: Request) -> Response:
        said, handle = request.query_params, request.cookies.get(_WAY_COOKIE)
        if not handle or "code" not in said or "state" not in said:
            raise Unauthenticated(
                "the identity provider did not sign you in, or this browser did not ask it: begin again"
            )
        body = {"handle": handle, "state": said["state"], "code": said["code"], "iss": said.get("iss")}
        found = do(request, "oidc.finish", body)
        response = RedirectResponse("/", status_code=303, headers=_HEADERS)
        _set_way(response, "", max_age_s=0)
        set_cookie(response, found["session"], max_age_s=int(LIFE.total_seconds()))
        return response

    return Route("/oidc/login", login), Route("/oidc/callback", callback)


_HEADERS: Final = {"cache-control": "no-store", "referrer-policy": "no-referrer"}


def _set_way(response: Response, handle: str, *, max_age_s: int) -> None:
    cookie = f"{_WAY_COOKIE}={handle}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={max_age_s}"
    response.headers.append("set-cookie", cookie)


def _silent(_message: str, _fraction: float | None) -> None:
    """Nobody watches."""
