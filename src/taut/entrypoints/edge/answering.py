"""Answering from a verified bundle: once, or over HTTP until stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from taut.bootstrap.edge import edge_world
from taut.core.errors import Conflict, InvalidInput
from taut.entrypoints.errors import DATA_PLANE, from_document
from taut.entrypoints.inputs import instances, read_json
from taut.serving.edge.bundle import Bundle
from taut.serving.edge.calling import Caller, read_token
from taut.serving.edge.cascade import Cloud
from taut.serving.edge.core import EdgeGateway, EdgeWorld
from taut.serving.edge.inputs import Inputs
from taut.serving.edge.reporter import Reporter
from taut.serving.edge.state import EdgeState
from taut.serving.gateway.ids import RequestIds
from taut.serving.gateway.replies import Reply
from taut.serving.gateway.server import GatewayServer
from taut.serving.runtime import load
from taut.serving.tasks import end_task
from taut.trust.tls import LiveTls, TlsFiles

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_DRAIN_S: Final = 10.0
_LAST_REPORT_S: Final = 3.0
_LOOK_S: Final = 1.0
_REPORT_PATH: Final = "/api/v1/edge/report"


def predict(bundle: Bundle, data: str) -> dict[str, Any]:
    """Answer once, by the very path of a request. Raises what a request would be refused with."""
    gateway = EdgeGateway(bundle, load(bundle.model, bundle.signature), _world(bundle))
    body = msgspec.json.encode({"instances": instances(read_json(data))})
    found = gateway.answer("POST", f"/v1/predict/{bundle.contents.model}", [], body)
    reply = found if isinstance(found, Reply) else asyncio.run(found)
    document: dict[str, Any] = msgspec.json.decode(reply.body)
    if reply.status != 200:
        told = document["error"]
        raise from_document(told["code"], told["message"])
    return document


def serve(bundle: Bundle, arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return 0 when everything under way was answered."""
    _check(arguments)
    with ExitStack() as stack:
        return asyncio.run(_serve(bundle, arguments, stack))


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise InvalidInput("TLS needs a certificate and its key: give --tls-cert and --tls-key")
    if arguments.host not in _LOOPBACK and arguments.tls_cert is None:
        raise InvalidInput(
            f"--host {arguments.host} would carry requests and tokens over the network in clear: give --tls-cert and "
            "--tls-key, or stay on 127.0.0.1"
        )
    if arguments.host not in _LOOPBACK and arguments.caller_token_file is None:
        raise InvalidInput(
            f"--host {arguments.host} would let anybody on the network ask: give --caller-token-file FILE with the token that "
            "callers show, or stay on 127.0.0.1"
        )
    if arguments.state is None and (arguments.report_to or arguments.keep_inputs):
        raise InvalidInput("--report-to and --keep-inputs keep something: say where with --state DIR")
    if arguments.token_file is None and (arguments.report_to or arguments.cloud):
        raise InvalidInput(
            "--report-to and --cloud need an identity: give its token or key with --token-file FILE"
        )
    if not 0 <= arguments.port <= 65535:
        raise InvalidInput(f"--port is {arguments.port}: choose 0 to 65535")
    if not 10 <= arguments.cloud_timeout_ms <= 60_000:
        raise InvalidInput(f"--cloud-timeout-ms is {arguments.cloud_timeout_ms}: choose 10 to 60000")
    if not 0.5 <= arguments.report_every <= 86_400:
        raise InvalidInput(f"--report-every is {arguments.report_every:g}: choose 0.5 to 86400 seconds")


async def _serve(bundle: Bundle, arguments: argparse.Namespace, stack: ExitStack) -> int:
    ids, random = edge_world()
    world = _world(bundle)
    model = load(bundle.model, bundle.signature)
    state = inputs = cloud = reporter = None
    if arguments.token_file is not None:
        read_token(arguments.token_file)  # a wrong path is said now, not by the first report
    if arguments.state is not None:
        state = EdgeState(arguments.state, bundle=bundle.id, now_us=world.now_us(), ids=ids)
        stack.callback(state.close)
        if arguments.keep_inputs:
            inputs = stack.enter_context(contextlib.closing(Inputs(arguments.state)))
    if arguments.cloud:
        caller = Caller(arguments.cloud, token_file=arguments.token_file)
        stack.callback(caller.close)
        columns = [column.name for column in bundle.manifest.signature.request]
        cloud = Cloud(
            caller, bundle.signature, columns=columns, threshold=arguments.confidence,
            timeout_s=arguments.cloud_timeout_ms / 1000, counter_ns=world.counter_ns,
        )  # fmt: skip
        stack.callback(cloud.close)
    if arguments.report_to and state is not None:
        control = Caller(arguments.report_to.rstrip("/") + _REPORT_PATH, token_file=arguments.token_file)
        stack.callback(control.close)
        reporter = Reporter(
            state,
            control,
            every_s=arguments.report_every,
            random=random,
            now_us=world.now_us,
            log_failure=_log_failure,
        )

    def trouble() -> list[str]:
        found = [] if reporter is None else reporter.reasons()
        return found if inputs is None or not inputs.faults else [*found, f"inputs not kept: {inputs.faults}"]

    token = None if arguments.caller_token_file is None else read_token(arguments.caller_token_file)
    gateway = EdgeGateway(
        bundle, model, world, token=token, state=state, inputs=inputs, cloud=cloud, trouble=trouble
    )
    live = None
    if arguments.tls_cert is not None:
        files = TlsFiles(cert=arguments.tls_cert, key=arguments.tls_key)
        live = LiveTls(files, now=lambda: datetime.now(UTC))
    return await _until_stopped(gateway, bundle, arguments, reporter, live)


async def _until_stopped(
    gateway: EdgeGateway,
    bundle: Bundle,
    arguments: argparse.Namespace,
    reporter: Reporter | None,
    live: LiveTls | None,
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _listening(arguments.host, arguments.port) as listener:
        server = GatewayServer(gateway, listener, tls=live)
        await server.start()
        host, port = listener.getsockname()[:2]
        scheme = "http" if live is None else "https"
        _say(
            f"{bundle.contents.version} serves on {scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            f"/v1/predict/{bundle.contents.model} (bundle {bundle.id}, trusted by {bundle.trusted})"
        )
        telling = None if reporter is None else asyncio.create_task(reporter.run())
        renewing = None if live is None else asyncio.create_task(_renewing(live))
        await stop.wait()
        if renewing is not None:
            await end_task(renewing)
        finished = await server.drain(timeout_s=_DRAIN_S)
        if reporter is not None and telling is not None:
            await end_task(telling)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_REPORT_S):
                    await reporter.tell()
    return 0 if finished else 7


async def _renewing(live: LiveTls) -> None:
    """Serve what the certificate's files hold, from the next handshake on, for as long as this task lives."""
    while True:
        await asyncio.sleep(_LOOK_S)
        seen = live.look()
        if seen in ("renewed", "mended"):
            _say(f"the certificate is {seen}: valid until {live.material.facts.not_after:%Y-%m-%d %H:%M} UTC")
        elif seen == "refused":
            _say(f"the certificate's files are not served: {live.refusal}")


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise Conflict(
                f"port {port} on {host} cannot be taken ({error.strerror}): choose another"
            ) from error
        listener.setblocking(False)
        yield listener


def _world(bundle: Bundle) -> EdgeWorld:
    _, random = edge_world()
    return EdgeWorld(
        lambda: time.time_ns() // 1000, time.perf_counter_ns, RequestIds(random), DATA_PLANE, _log_failure,
        bundle.contents.taut,
    )  # fmt: skip


def _log_failure(request_id: str, error: BaseException) -> None:
    _say(f"{request_id} failed: {''.join(traceback.format_exception(error))}")


def _say(line: str) -> None:
    sys.stderr.write(line.rstrip("\n") + "\n")
    sys.stderr.flush()
