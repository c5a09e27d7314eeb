"""The control process: `python -m taut.entrypoints.control_main --home DIR --host 127.0.0.1 --port 8081`.

One platform; the API on its port and on the installation's socket; stories worked on; the gateways' stream; and a
housekeeper that keeps the ledger sequenced, the prediction log sealed and the gateways up to date.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import uvicorn

from taut.bootstrap.housekeeping import Housekeeper
from taut.bootstrap.lookout import LookoutThread
from taut.bootstrap.platform import Platform, open_platform
from taut.bootstrap.wanted import Wanted
from taut.core.errors import TautError, Unavailable
from taut.core.hosts import LOOPBACK
from taut.entrypoints.certificates import add_arguments, kept_fresh, open_tls, paths_of
from taut.entrypoints.control_server import Door, QuietServer, TlsServer
from taut.entrypoints.errors import exit_code_of
from taut.entrypoints.listening import listen_inside, require_secure
from taut.entrypoints.logs import Log, install
from taut.ports.stories import Stories
from taut.trust.svid.tls import PartTls
from taut.trust.tls import LiveTls

_STORY_THREADS: Final = 2
"""That take every story. A training may hold one for hours."""
_LOOK_S: Final = 1.0
_DRAIN_S: Final = 10.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="taut-control", description="the control plane of one installation")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--door-port", type=int, default=0, help="where machines speak to control; 0 for nowhere"
    )
    parser.add_argument("--gateways", type=int, default=1, help="how many share a quota")
    parser.add_argument("--data-plane", default="", help="where gateways of this machine listen, as a URL")
    parser.add_argument("--ready-fd", type=int, default=-1, help="told `ready` once the API answers")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    log = Log("control")
    install(log)
    try:
        with open_platform(arguments.home.resolve(), environ=os.environ) as platform:
            return _run(platform, arguments, log)
    except TautError as error:
        log.last_word(error)
        return exit_code_of(error)


def _run(platform: Platform, arguments: argparse.Namespace, log: Log) -> int:
    # Before there are threads: its parts import one another, and of two threads that begin with different ones
    # (`numpy`, `numpy.typing`) at the same time, each finds what the other has half made.
    import numpy as np  # noqa: F401 - what is imported lazily later finds it whole

    from taut.bootstrap.admitting import Admitting
    from taut.bootstrap.scaling import Scaling
    from taut.serving.snapshot import Publisher

    platform.gateways = Wanted(platform.home).read() or arguments.gateways
    platform.url = arguments.data_plane
    platform.exposed = arguments.host not in LOOPBACK
    live = open_tls(paths_of(arguments))
    require_secure(arguments.host, tls=live is not None, plane="control")
    with ExitStack() as stack:
        tcp = stack.enter_context(_listen_tcp(arguments.host, arguments.port))
        own = stack.enter_context(listen_inside(platform.home / "run" / "control.sock"))
        platform.records.check()
        platform.own_database()
        door = _open_door(platform, arguments, stack, log)
        admitting = platform.admitting = Admitting(platform, failed=log.failure)
        platform.scaling = Scaling(platform, admitting)
        platform.publisher = stack.enter_context(
            Publisher(platform.snapshots, platform.home / "run" / "stream.sock", heard=admitting.heard)
        )
        _publish(platform, log)
        stack.enter_context(Housekeeper(platform, log=log.failure, warn=log.warning))
        stack.enter_context(LookoutThread(platform, log=log.failure))
        workers = story_threads(platform.stories)
        for worker in workers:
            worker.start()
        stack.callback(_stop_stories, platform, workers)
        asyncio.run(_serve(platform, tcp, own, log, ready_fd=arguments.ready_fd, live=live, door=door))
    log.info("stopped")
    return 0


def _open_door(platform: Platform, arguments: argparse.Namespace, stack: ExitStack, log: Log) -> Door | None:
    """Open the machines' door. Where no identity can be made, control must run all the same, as without machines."""
    if not arguments.door_port:
        return None
    try:
        platform.parts.keep()
        tls = platform.parts.open_tls()
    except TautError as error:
        log.failure("machines cannot speak to control until it starts again: it has no identity", error)
        return None
    listener = stack.enter_context(_listen_tcp(arguments.host, arguments.door_port))
    platform.parts.door = arguments.door_port
    return Door(listener, tls)


def _publish(platform: Platform, log: Log) -> None:
    """Tell gateways what to serve. Where that fails, control must run all the same: it is how people mend it."""
    try:
        platform.publish()
    except TautError as error:
        log.failure("could not publish what is to be served, gateways serve on, will try again", error)


def story_threads(stories: Stories) -> list[threading.Thread]:
    """Return the threads that tell stories, not started: some that take each, one that takes what must not stand behind
    trainings, and one that takes answers to what is wrong, which must not stand behind a long release either."""
    from taut.workflows.stories import ANSWERS, PROMPT

    kept_for: tuple[Collection[str] | None, ...] = (*[None] * _STORY_THREADS, PROMPT, ANSWERS)
    return [
        threading.Thread(target=stories.work, kwargs={"only": names}, name=f"stories-{number}", daemon=True)
        for number, names in enumerate(kept_for)
    ]


def _stop_stories(platform: Platform, workers: list[threading.Thread]) -> None:
    platform.stories.stop()
    for worker in workers:
        worker.join(timeout=_DRAIN_S)


def _listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"port {port} on {host} cannot be taken ({error.strerror}): stop what listens there, or choose another "
            "with --port"
        ) from error
    return listener


async def _serve(
    platform: Platform,
    tcp: socket.socket,
    own: socket.socket,
    log: Log,
    *,
    ready_fd: int,
    live: LiveTls | None,
    door: Door | None,
) -> None:
    from taut.entrypoints.api import make_app
    from taut.entrypoints.bounded import ARRIVAL_S, IDLE_S, protocols
    from taut.entrypoints.operations import operation_table
    from taut.serving.gateway.bounded import sweep

    def failed(request_id: str, error: BaseException) -> None:
        log.failure("request failed", error, request_id=request_id)

    app = make_app(platform, operation_table(), log_failure=failed)
    common: dict[str, Any] = {
        "lifespan": "off", "access_log": False, "log_config": None, "server_header": False,
        "timeout_graceful_shutdown": int(_DRAIN_S), "proxy_headers": False,
    }  # fmt: skip
    outer_protocol, inner_protocol, door_protocol = protocols(platform.ids.new)
    reached = uvicorn.Config(app, http=outer_protocol, **common)
    outer = QuietServer(reached) if live is None else TlsServer(reached, live)
    inner = QuietServer(uvicorn.Config(app, http=inner_protocol, **common))
    listening: dict[uvicorn.Server, socket.socket] = {outer: tcp, inner: own}
    if door is not None:
        listening[TlsServer(uvicorn.Config(app, http=door_protocol, **common), door.tls)] = door.listener
    servers = tuple(listening)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, servers, platform)
    parent = os.getppid()
    tasks = [asyncio.create_task(server.serve(sockets=[found])) for server, found in listening.items()]
    watches = [
        asyncio.create_task(_stop_with_parent(servers, platform, parent)),
        *(
            asyncio.create_task(sweep(server.server_state.connections, arrival_s=ARRIVAL_S, idle_s=IDLE_S))
            for server in servers
        ),
        *([] if door is None else [asyncio.create_task(_renew(door.tls, log))]),
    ]
    while not all(server.started for server in servers) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    log.info("ready", pid=os.getpid())
    if ready_fd >= 0:
        os.write(ready_fd, b"ready\n")
    renewed = outer.judge_peers if isinstance(outer, TlsServer) else _nothing
    async with kept_fresh(live, home=platform.home, name="control", log=log, on_renewed=renewed):
        await asyncio.gather(*tasks)
    for watch in watches:
        watch.cancel()


async def _renew(tls: PartTls, log: Log) -> None:
    """Show what the housekeeper renewed; who is connected is judged each second by the server."""
    said = ""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            await asyncio.to_thread(tls.look)
            said = ""
        except (TautError, OSError) as error:
            if said != str(error):
                said = str(error)
                log.failure("the former identity is shown to machines", error)


def _nothing() -> None:
    """There is no TLS whose clients could be judged."""


def _stop(servers: tuple[uvicorn.Server, ...], platform: Platform) -> None:
    if platform.publisher is not None:
        platform.publisher.let_go()  # else the servers would wait for machines that wait for the next snapshot
    for server in servers:
        server.should_exit = True


async def _stop_with_parent(servers: tuple[uvicorn.Server, ...], platform: Platform, parent: int) -> None:
    """The supervisor owns this process: when it is gone, the next one starts another."""
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    _stop(servers, platform)


if __name__ == "__main__":
    sys.exit(main())
