"""The control plane's HTTP face: every operation under `/api/v1`, its OpenAPI, health, metrics, a status page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from taut.core.errors import InvalidInput, NotFound, StepUp, TautError
from taut.entrypoints import errors
from taut.entrypoints.answer_headers import AnswerHeaders
from taut.entrypoints.callers import authenticate, clear_cookie, require_own_page, set_cookie, stranger
from taut.entrypoints.metrics import make_registry
from taut.entrypoints.oidc_pages import pages
from taut.entrypoints.openapi import describe
from taut.entrypoints.operations import OperationTable
from taut.entrypoints.operations.operation import (
    FRESH,
    MAX_BODY_BYTES,
    Json,
    Operation,
    Platform,
    decode,
    perform,
)
from taut.entrypoints.page import status_page
from taut.entrypoints.streams import NDJSON, stream
from taut.trust.signin.sessions import LIFE

_LOG_FIELD: Final = "request_id"

_STEP_UP: Final = f'Bearer error="insufficient_user_authentication", max_age="{FRESH.seconds}"'
"""As RFC 9470 has it."""

_JWKS_S: Final = 60.0
_STRANGER_BYTES: Final = 64 * 1024
"""Of a body that is read before anybody knows who sends it."""

LogFailure = Callable[[str, BaseException], None]
"""Called with the request id and what failed, for failures that are ours."""


def make_app(platform: Platform, table: OperationTable, *, log_failure: LogFailure) -> Starlette:
    """Build the control API over one platform.

    A caller is the principal of his bearer, or, on the installation's own Unix socket (served with `PeerProtocol`),
    the owner of its files. Every operation is decided by policy before it runs.
    """

    async def failed(_request: Request, error: Exception) -> Response:
        return _failure(platform, error, log_failure)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = "method_not_allowed" if error.status_code == 405 else NotFound.code
        message = f"{request.method} {request.url.path[:200]} is not here: /openapi.json lists what is"
        body = msgspec.json.encode(errors.document(code, message, platform.ids.new("req")))
        return Response(
            body, status_code=error.status_code, headers=error.headers, media_type="application/json"
        )

    return Starlette(
        routes=[
            *(_route(platform, table, operation, log_failure) for operation in table),
            *pages(platform, table),
            *_health(platform, table),
            _metrics(platform),
        ],
        middleware=[Middleware(AnswerHeaders)],
        exception_handlers={Exception: failed, TautError: failed, HTTPException: unknown},
    )


def _route(platform: Platform, table: OperationTable, operation: Operation, log_failure: LogFailure) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:  # noqa: BLE001 - the edge: a failure of ours gets an id, a log line and one shape
            return _failure(platform, error, log_failure)

    async def answer(request: Request) -> Response:
        if operation.open:
            caller = stranger(request)
        else:  # before a body is read for a stranger
            caller = await run_in_threadpool(authenticate, platform, request)
        body = await _body(request, operation)
        if operation.open and isinstance(body, dict) and body.get("kind") == "console":
            require_own_page(request)  # else another site could sign a browser in as somebody of its choice
            if NDJSON in request.headers.get("accept", ""):
                raise InvalidInput("a console's session comes as a cookie: accept application/json")
        if NDJSON in request.headers.get("accept", ""):
            lines: AsyncIterator[bytes] = stream(
                lambda progress: perform(table, platform, caller, operation.name, body, progress),
                lambda error: _document(platform, error, log_failure),
            )
            return StreamingResponse(lines, media_type=NDJSON)
        result = await run_in_threadpool(perform, table, platform, caller, operation.name, body, _silent)
        return _answer(operation, result)

    return Route(operation.path, endpoint, methods=["GET", "POST"] if operation.reads else ["POST"])


def _answer(operation: Operation, result: Json) -> Response:
    """The result as JSON; a console's session goes into a cookie, where no script of a page can read it."""
    secret = result.get("session") if operation.open and result.get("kind") == "console" else None
    shown = {name: value for name, value in result.items() if secret is None or name != "session"}
    response = Response(msgspec.json.encode(shown), media_type="application/json")
    if secret is not None:
        set_cookie(response, str(secret), max_age_s=int(LIFE.total_seconds()))
    elif operation.name == "session.end":
        clear_cookie(response)
    return response


def _size(amount: int) -> str:
    return f"{amount // 2**20} MiB" if amount >= 2**20 else f"{amount // 2**10} KiB"


async def _body(request: Request, operation: Operation) -> object:
    if request.method in ("GET", "HEAD"):
        fields = decode(operation, dict(request.query_params), strict=False)
        return msgspec.to_builtins(fields)
    size, most = 0, _STRANGER_BYTES if operation.open else MAX_BODY_BYTES
    parts: list[bytes] = []
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise errors.TooLarge(f"the body passes {_size(most)}: send less")
            parts.append(part)
    except ClientDisconnect:
        raise InvalidInput("the connection ended before the body did: send it whole") from None
    try:
        return msgspec.json.decode(b"".join(parts) or b"{}")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from error


def _health(platform: Platform, table: OperationTable) -> tuple[Route, ...]:
    """What everybody may ask: how this is, what it can do, whom to believe about its tokens and its parts."""
    published: tuple[bytes, float] | None = None

    async def livez(_request: Request) -> Response:
        return Response(_OK, media_type="application/json")

    def readyz(_request: Request) -> Response:
        platform.records.check()
        return Response(_OK, media_type="application/json")

    def schema(_request: Request) -> Response:
        return Response(msgspec.json.encode(describe(table)), media_type="application/json")

    def jwks(_request: Request) -> Response:
        """Asked by strangers, so that whoever holds the keys is asked once a minute at most."""
        nonlocal published
        now_s = platform.clock.monotonic_s()
        if published is None or now_s - published[1] > _JWKS_S:
            published = (msgspec.json.encode(platform.identity.jwks()), now_s)
        return Response(
            published[0],
            media_type="application/jwk-set+json",
            headers={"cache-control": "public, max-age=60"},
        )

    def bundle(_request: Request) -> Response:
        """Whom to believe about parts of this platform; read from the disk, so that strangers cost little."""
        found = msgspec.json.encode(platform.parts.files.read_bundle().to_json())
        return Response(found, media_type="application/json", headers={"cache-control": "public, max-age=60"})

    def page(_request: Request) -> Response:
        return HTMLResponse(status_page(), headers=_PAGE_HEADERS)

    return (
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/openapi.json", schema),
        Route("/.well-known/jwks.json", jwks),
        Route("/.well-known/spiffe/bundle.json", bundle),
        Route("/", page),
    )


def _metrics(platform: Platform) -> Route:
    """Offer the figures: to everybody on this machine; to other machines only with the right to see the status."""
    registry = make_registry(platform)

    def metrics(request: Request) -> Response:
        if platform.exposed:
            caller = authenticate(platform, request)
            context = {"plane": "control", "local": caller.local, "now": platform.clock.now()}
            platform.policy.require(caller.principal, "status.read", "platform:all", context)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


_OK: Final = b'{"ok":true}'

_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


def _failure(platform: Platform, error: Exception, log_failure: LogFailure) -> Response:
    status = errors.status_of(error) if isinstance(error, TautError) else 500
    headers = {}
    if isinstance(error, TautError) and (wait := errors.retry_after(error)):
        headers["retry-after"] = wait
    if status == 401:
        headers["www-authenticate"] = "Bearer" if not isinstance(error, StepUp) else _STEP_UP
    body = msgspec.json.encode(_document(platform, error, log_failure))
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _document(platform: Platform, error: BaseException, log_failure: LogFailure) -> dict[str, object]:
    request_id = platform.ids.new("req")
    if isinstance(error, TautError):
        return errors.document(error.code, error.message, request_id)
    log_failure(request_id, error)
    return errors.document(
        errors.INTERNAL, f"taut failed on this request: look for {request_id} in the log", request_id
    )


def _silent(_message: str, _fraction: float | None) -> None:
    """Nobody watches: the caller asked for the result only."""
