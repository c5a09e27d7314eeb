"""The gRPC face: each call becomes a request to the gateways, where every guard is; their refusals become status codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import msgspec

from taut.core.errors import Conflict, TautError, Unavailable
from taut.serving.errors import Malformed
from taut.serving.rpc.convert import MAX_BODY_BYTES, infer_body, infer_response, metadata_response, model_path
from taut.serving.rpc.messages import HEALTH, INFERENCE, Messages
from taut.serving.rpc.secure import RpcTls
from taut.serving.upstream import Answer, Upstream

MAX_MESSAGE_BYTES: Final = MAX_BODY_BYTES + 64 * 1024
MAX_CALLS: Final = 256
MAX_CONNECTIONS: Final = 2048
_MAX_WATCHERS: Final = 32
_MAX_METADATA_BYTES: Final = 16 * 1024
_FORWARDED: Final = frozenset({"authorization", "taut-priority", "taut-subject", "traceparent"})
_DEADLINE: Final = "taut-deadline-ms"
_MAX_DEADLINE_S: Final = 600.0
_GRACE_S: Final = 5.0  # a gateway keeps the deadline itself; this is for one that does not answer
_WATCH_S: Final = 1.0
_LINGER_S: Final = 0.3
_MESSAGE_CHARS: Final = 2000
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3

Codes = Mapping[str, str]
"""Names of gRPC status codes by error code; the one table lies with the entrypoints and comes in by the door."""
LogFailure = Callable[[BaseException], None]
Context = Any
Metadata = tuple[tuple[str, str], ...]
Handler = Callable[[bytes, Context], Awaitable[bytes]]


class _Refused(Exception):
    """How a call ends that gets no answer. metadata: what its caller is told beside the message."""

    def __init__(self, code: str, message: str, metadata: Metadata = ()) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.metadata: Final = metadata


class Service:
    """Answers the calls of both services.

    codes: see Codes. log_failure: hears of failures that are ours. arrival_s: how long a message may take to arrive.
    tls: of its server.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        codes: Codes,
        log_failure: LogFailure,
        arrival_s: float = 20.0,
        tls: RpcTls | None = None,
    ) -> None:
        self._tls: Final = tls
        self._upstream: Final = upstream
        self._codes: Final = codes
        self._log_failure: Final = log_failure
        self._arrival_s: Final = arrival_s
        self._messages: Final = Messages()
        self._stopping: Final = asyncio.Event()
        self._watchers = 0
        self.under_way = 0

    def handlers(self) -> tuple[Any, Any]:
        """Return both services as grpc takes them.

        Messages are awaited and parsed here: grpc would wait for one without end, and call a malformed one our failure.
        On the wire a call is the same whether its server reads one message or a stream.
        """
        calls: dict[str, Handler] = {
            "ServerLive": self._server_live, "ServerReady": self._server_ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata, "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }  # fmt: skip
        inference = {
            name: grpc.stream_unary_rpc_method_handler(self._guarded(call)) for name, call in calls.items()
        }
        health = {
            "Check": grpc.stream_unary_rpc_method_handler(self._guarded(self._check)),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return (
            grpc.method_handlers_generic_handler(INFERENCE, inference),
            grpc.method_handlers_generic_handler(HEALTH, health),
        )

    def stop(self) -> None:
        """Refuse what comes from now on, so that it is asked elsewhere or again, and end the watches."""
        self._stopping.set()

    def _guarded(self, call: Handler) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def answer(requests: AsyncIterator[bytes], context: Context) -> bytes:
            if self._stopping.is_set():
                said = "this gRPC process is ending: ask again shortly"
                await self._abort(context, _Refused("unavailable", said, _retry(1.0)))
            self.under_way += 1
            try:
                self._admit(context)
                return await call(await self._arrived(requests), context)
            except _Refused as told:
                refused = told
            except TautError as error:
                refused = _Refused(error.code, error.message)
            except Exception as error:  # noqa: BLE001 - whatever fails in us must not show itself to a caller
                self._log_failure(error)
                refused = _Refused(
                    "internal", "something failed in the gRPC process itself: look into its log"
                )
            finally:
                self.under_way -= 1
            await self._abort(context, refused)
            raise AssertionError("abort() raises")

        return answer

    def _admit(self, context: Context) -> None:
        if self._tls is not None and not self._tls.admits(context):
            raise _Refused(
                "unauthenticated", "the client's certificate is no longer trusted: renew it, connect again"
            )

    async def _arrived(self, requests: AsyncIterator[bytes]) -> bytes:
        """Return the call's one message."""
        try:
            async with asyncio.timeout(self._arrival_s):
                async for data in requests:
                    return data
        except TimeoutError:
            raise Malformed(
                f"the message did not arrive within {self._arrival_s:g} s: send it faster"
            ) from None
        raise Malformed("the call ended without a message: send one")

    async def _abort(self, context: Context, refused: _Refused) -> None:
        status = grpc.StatusCode[self._codes.get(refused.code, "INTERNAL")]
        metadata = (*refused.metadata, ("taut-error-code", refused.code))
        await context.abort(status, refused.message[:_MESSAGE_CHARS], metadata)

    async def _ask(
        self, context: Context, method: str, path: str, body: bytes = b"", json_bytes: int | None = None
    ) -> Answer:
        """Ask a gateway as the caller; what it says about the answer becomes trailing metadata."""
        headers, timeout_s = _headers(context)
        if json_bytes is not None:
            headers.append(("inference-header-content-length", str(json_bytes)))
        answer = await self._upstream.ask(method, path, headers, body, timeout_s=timeout_s)
        told = tuple((name, value) for name, value in answer.headers.items() if name.startswith("taut-"))
        if answer.status == 200 or (method == "GET" and answer.status == 503):
            context.set_trailing_metadata(told)
            return answer
        error = msgspec.json.decode(answer.body)["error"]
        wait = answer.headers.get("retry-after")
        metadata = told if wait is None else (*told, *_retry(float(wait)))
        raise _Refused(error["code"], error["message"], metadata)

    async def _server_live(self, data: bytes, context: Context) -> bytes:
        self._messages.parse("ServerLiveRequest", data)
        answer = await self._ask(context, "GET", "/v2/health/live")
        return self._say("ServerLiveResponse", live=answer.status == 200)

    async def _server_ready(self, data: bytes, context: Context) -> bytes:
        self._messages.parse("ServerReadyRequest", data)
        return self._say("ServerReadyResponse", ready=await self._ready(context))

    async def _ready(self, context: Context) -> bool:
        return (await self._ask(context, "GET", "/v2/health/ready")).status == 200

    async def _model_ready(self, data: bytes, context: Context) -> bytes:
        asked = self._messages.parse("ModelReadyRequest", data)
        answer = await self._ask(context, "GET", f"{model_path(asked.name, asked.version)}/ready")
        found = msgspec.json.decode(answer.body)
        if "error" in found:  # no snapshot: the gateway cannot even say who asks
            raise Unavailable(found["error"]["message"])
        return self._say("ModelReadyResponse", ready=found["ready"])

    async def _server_metadata(self, data: bytes, context: Context) -> bytes:
        self._messages.parse("ServerMetadataRequest", data)
        found = msgspec.json.decode((await self._ask(context, "GET", "/v2")).body)
        return self._say(
            "ServerMetadataResponse",
            name=found["name"],
            version=found["version"],
            extensions=[one for one in found["extensions"] if one != "model_repository"],  # over REST only
        )

    async def _model_metadata(self, data: bytes, context: Context) -> bytes:
        asked = self._messages.parse("ModelMetadataRequest", data)
        answer = await self._ask(context, "GET", model_path(asked.name, asked.version))
        found = msgspec.json.decode(answer.body)
        if "error" in found:
            raise Unavailable(found["error"]["message"])
        return metadata_response(self._messages, found)

    async def _model_infer(self, data: bytes, context: Context) -> bytes:
        request = self._messages.parse("ModelInferRequest", data)
        path = f"{model_path(request.model_name, request.model_version)}/infer"
        body, json_bytes = infer_body(request)
        answer = await self._ask(context, "POST", path, body, json_bytes)
        return infer_response(self._messages, answer, typed=not request.raw_input_contents)

    def _say(self, name: str, /, **fields: object) -> bytes:
        said: bytes = self._messages[name](**fields).SerializeToString()
        return said

    # grpc.health.v1

    async def _check(self, data: bytes, context: Context) -> bytes:
        asked = self._messages.parse("HealthCheckRequest", data)
        if asked.service not in ("", INFERENCE, HEALTH):
            raise _Refused("not_found", f"service {asked.service[:60]!r} is none of this server")
        return self._say("HealthCheckResponse", status=await self._health(context))

    async def _health(self, context: Context) -> int:
        try:
            return _SERVING if not self._stopping.is_set() and await self._ready(context) else _NOT_SERVING
        except Unavailable:
            return _NOT_SERVING

    async def _watch(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """Say how it is, and again whenever that changes."""
        if self._watchers >= _MAX_WATCHERS:
            full = f"{_MAX_WATCHERS} clients watch already: use Check"
            await self._abort(context, _Refused("exhausted", full, _retry(60.0)))
            return
        try:
            self._admit(context)
            asked = self._messages.parse("HealthCheckRequest", data)
        except _Refused as refused:
            await self._abort(context, refused)
            return
        except Malformed as error:
            await self._abort(context, _Refused(error.code, error.message))
            return
        known = asked.service in ("", INFERENCE, HEALTH)
        self._watchers += 1
        said = -1
        try:
            while True:
                status = await self._health(context) if known else _SERVICE_UNKNOWN
                if status != said:
                    said = status
                    yield self._say("HealthCheckResponse", status=status)
                if self._stopping.is_set():
                    return
                try:
                    await asyncio.wait_for(self._stopping.wait(), _WATCH_S)
                except TimeoutError:
                    continue
        finally:
            self._watchers -= 1


def _retry(wait_s: float) -> Metadata:
    """Return when to come again, for people and for clients with a retry policy."""
    return ("retry-after", f"{wait_s:g}"), ("grpc-retry-pushback-ms", str(int(wait_s * 1000)))


def _headers(context: Context) -> tuple[list[tuple[str, str]], float]:
    """Return what a gateway is told of the caller, and how long it may take: the shorter of the call's and the header's."""
    headers: list[tuple[str, str]] = []
    given: list[tuple[str, str]] = []
    for name, value in context.invocation_metadata() or ():
        if name not in _FORWARDED and name != _DEADLINE:
            continue
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise Malformed(f"metadata {name} is no printable ASCII")
        (given if name == _DEADLINE else headers).append((name, value))
    left_s = context.time_remaining()
    left_s = _MAX_DEADLINE_S if left_s is None else max(0.001, min(left_s, _MAX_DEADLINE_S))
    left_ms = str(int(left_s * 1000))
    value = given[0][1] if given else left_ms
    if len(given) <= 1 and value.isdigit() and len(value) < 10:
        asked_ms = min(int(value), int(left_ms)) if given else int(left_ms)
        if given or left_s < _MAX_DEADLINE_S:
            headers.append((_DEADLINE, str(asked_ms)))
    else:
        headers += given  # sent twice, or no number: the gateway says what is wrong
    return headers, left_s + _GRACE_S


class RpcServer:
    """Both services on one port of one address.

    tls: without it, messages go as they are. max_connections: further ones are closed at once, so that those who are
    served go on. shared: others of the same owner may listen on the port as well (SO_REUSEPORT), if they say so, too;
    otherwise a port that is taken is refused.
    """

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        *,
        tls: RpcTls | None = None,
        max_connections: int = MAX_CONNECTIONS,
        shared: bool = False,
    ) -> None:
        self._service: Final = service
        self._server: Final = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", 128),
                ("grpc.max_allowed_incoming_connections", max_connections),
                # compressed messages are refused: the bound on messages is on what is sent, not on what it inflates to
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.max_connection_idle_ms", 300_000),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 2),
            ],
        )
        self._server.add_generic_rpc_handlers(service.handlers())
        host = f"[{host}]" if ":" in host else host
        try:
            where = f"{host}:{port}"
            server = self._server
            taken: int = (
                server.add_insecure_port(where)
                if tls is None
                else server.add_secure_port(where, tls.credentials())
            )
        except RuntimeError as error:
            raise Conflict(f"port {port} on {host} cannot be taken: stop what listens there") from error
        self.port: Final = taken

    async def start(self) -> None:
        await self._server.start()

    async def drain(self, *, timeout_s: float) -> None:
        """Refuse new calls, let those under way end, cut off what is left.

        grpc itself ends calls that reach it in the moment of its stop as cancelled, which no client asks again; so it
        is stopped when those who keep asking have been told.
        """
        self._service.stop()
        loop = asyncio.get_running_loop()
        linger_s, deadline_s = loop.time() + _LINGER_S, loop.time() + timeout_s
        while loop.time() < linger_s or (self._service.under_way and loop.time() < deadline_s):
            await asyncio.sleep(0.01)
        await self._server.stop(max(0.0, min(1.0, deadline_s - loop.time())))
