"""A gateway's process as `taut.entrypoints.gateway_main` builds it, with a second door behind which nothing guards.

`--off-port-file FILE`: where the second door's port is written. Both doors share the loop, the snapshot, the workers, the
HTTP limits and the protocol; behind the first is the product's core, behind the second `Unguarded`. One process, since two
of the same program differ by a percent or two in how their memory happens to lie.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from taut.bootstrap.artifacts import artifacts_digest, build_digest
from taut.bootstrap.config import Config
from taut.bootstrap.gateway import open_online_reader, system_random
from taut.core.errors import TautError
from taut.entrypoints.errors import DATA_PLANE
from taut.entrypoints.gateway_main import start_zygote
from taut.serving.gateway import Gateway, GatewayNode, GatewayServer, Reply, World
from taut.serving.gateway.answers import render
from taut.serving.gateway.begun import begin
from taut.serving.gateway.guard import DEFAULT_PRIORITY, Caller, Session
from taut.serving.gateway.replies import JSON
from taut.serving.gateway.ticket import Ticket
from taut.serving.predictions import PredictionLog
from taut.serving.snapshot import SnapshotStore, TrustFile
from taut.serving.workers import Fleet, Unwarded
from taut.trust.identity.principals import Principal

_DEADLINE_NS: Final = 30_000_000_000
_NOBODY: Final = Session(Principal(id="nobody", kind="service", roles=()), "", 0, {})
_ANYBODY: Final = Caller(30_000, DEFAULT_PRIORITY, "")


class Unguarded:
    """Answers inference requests as `Gateway` does, without guarding anything: see `bench_guards` for what that leaves out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway: Final = gateway
        self.max_body_bytes: Final = gateway.max_body_bytes
        self.refuse: Final = gateway.refuse

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply | Coroutine[Any, Any, Reply]:
        active = self._gateway.active
        route = None if active is None else active.routes.get(path)
        if active is None or route is None or method != "POST":
            return self._gateway.answer(method, path, headers, body)
        endpoint = route.endpoint
        try:
            request = endpoint.tensors.decode(body)
        except TautError as error:
            return self.refuse(error, close=False)
        if endpoint.lanes or endpoint.way is not None or request.batch.count > endpoint.short_rows:
            now_ns = time.perf_counter_ns()
            ticket = Ticket(
                "", time.time_ns() // 1000, now_ns, now_ns, active, route, session=_NOBODY, caller=_ANYBODY,
                deadline_ns=now_ns + _DEADLINE_NS,
            )  # fmt: skip
            later = self._later(ticket, request)
            return begin(later) if endpoint.prompt else later
        outputs = endpoint.live.score(request.batch, ())
        return Reply(
            200, JSON, render("v2", endpoint, endpoint.live.served, outputs, "", request.id, request.outputs)
        )

    async def _later(self, ticket: Ticket, request: Any) -> Reply:
        endpoint = ticket.route.endpoint
        try:
            made = await self._gateway.scoring.later(ticket, endpoint, request.batch)
        except TautError as error:
            return self.refuse(error, close=False)
        return Reply(
            200, JSON, render("v2", endpoint, made.served, made.outputs, "", request.id, request.outputs)
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--alone", action="store_true", help="as every gateway of a benchmark of its own is")
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--off-port-file", type=Path, required=True)
    uvloop.run(_serve(parser.parse_args()))
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    home, random = arguments.home, system_random()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listener = socket.socket(fileno=arguments.fd)
    listener.setblocking(False)
    with (
        ThreadPoolExecutor(2) as pool,
        open_online_reader(Config.load(home, os.environ)) as online,
        contextlib.closing(
            PredictionLog(
                home / "log" / "predictions", arguments.name, now_us=_now_us, monotonic_s=time.monotonic, random=random
            )
        ) as log,
    ):  # fmt: skip
        gateway = Gateway(
            log=log, online=online, statuses=DATA_PLANE, pool=pool, log_failure=_fail,
            world=World(_now_us, time.monotonic, time.perf_counter_ns, random),
        )  # fmt: skip
        trust = TrustFile(home / "serving" / "trust.json")
        build = build_digest(artifacts_digest())
        fleet = Fleet(start_zygote, warden=lambda *_: Unwarded(build))
        node = GatewayNode(
            gateway, home=home, name=arguments.name, store=SnapshotStore(home / "serving", trust), trust=trust,
            random=random, fleet=fleet,
        )  # fmt: skip
        await node.start_from_disk()
        off = socket.create_server(("127.0.0.1", 0))
        off.setblocking(False)
        arguments.off_port_file.write_text(str(off.getsockname()[1]))
        servers = [GatewayServer(gateway, listener), GatewayServer(cast(Gateway, Unguarded(gateway)), off)]
        for server in servers:
            await server.start()
        gc.freeze()
        os.write(arguments.ready_fd, b"ready\n")
        await stop.wait()
        for server in servers:
            await server.drain(timeout_s=5)
        await fleet.close()


def _fail(request_id: str, error: BaseException) -> None:
    raise AssertionError(f"the gateway itself failed on {request_id}") from error


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
