"""The control plane's HTTP face: every operation under `/api/v1`, its OpenAPI, health, metrics, a status page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from taut import __version__
from taut.core.errors import InvalidInput, NotFound, StepUp, TautError
from taut.entrypoints import errors
from taut.entrypoints.answer_headers import AnswerHeaders
from taut.entrypoints.callers import authenticate, clear_cookie, require_own_page, set_cookie, stranger
from taut.entrypoints.metrics import make_registry
from taut.entrypoints.oidc_pages import add_pages
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


def make_app(platform: Platform, table: OperationTable, *, log_failure: LogFailure) -> FastAPI:
    """Build the control API over one platform.

    A caller is the principal of his bearer, or, on the installation's own Unix socket (served with `PeerProtocol`),
    the owner of its files. Every operation is decided by policy before it runs.
    """
    app = FastAPI(title="taut control plane", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(AnswerHeaders)
    app.openapi = lambda: describe(table)  # type: ignore[method-assign]  # the documented way to replace the schema

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        return _failure(platform, error, log_failure)

    @app.exception_handler(TautError)
    async def refused(_request: Request, error: TautError) -> Response:
        return _failure(platform, error, log_failure)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        code = "method_not_allowed" if error.status_code == 405 else NotFound.code
        message = f"{request.method} {request.url.path[:200]} is not here: /openapi.json lists what is"
        body = msgspec.json.encode(errors.document(code, message, platform.ids.new("req")))
        return Response(
            body, status_code=error.status_code, headers=error.headers, media_type="application/json"
        )

    for operation in table:
        _route(app, platform, table, operation, log_failure)
    add_pages(app, platform, table)
    _health(app, platform)
    _metrics(app, platform)
    return app


def _route(
    app: FastAPI, platform: Platform, table: OperationTable, operation: Operation, log_failure: LogFailure
) -> None:
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

    methods = ["GET", "POST"] if operation.reads else ["POST"]
    app.add_api_route(operation.path, endpoint, methods=methods, include_in_schema=False, response_model=None)


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
    if request.method == "GET":
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


def _health(app: FastAPI, platform: Platform) -> None:
    published: tuple[bytes, float] | None = None

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> dict[str, bool]:
        platform.records.check()
        return {"ok": True}

    @app.get("/.well-known/jwks.json", include_in_schema=False)
    def jwks() -> Response:
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

    @app.get("/.well-known/spiffe/bundle.json", include_in_schema=False)
    def bundle() -> Response:
        """Whom to believe about parts of this platform; read from the disk, so that strangers cost little."""
        found = msgspec.json.encode(platform.parts.files.read_bundle().to_json())
        return Response(found, media_type="application/json", headers={"cache-control": "public, max-age=60"})

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(status_page(), headers=_PAGE_HEADERS)


def _metrics(app: FastAPI, platform: Platform) -> None:
    """Offer the figures: to everybody on this machine; to other machines only with the right to see the status."""
    registry = make_registry(platform)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        if platform.exposed:
            caller = authenticate(platform, request)
            context = {"plane": "control", "local": caller.local, "now": platform.clock.now()}
            platform.policy.require(caller.principal, "status.read", "platform:all", context)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


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
