"""The gRPC process: `python -m taut.entrypoints.grpc_main --host 127.0.0.1 --port 8082 --gateways-port 8080`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import Final

from taut.core.errors import InvalidInput, TautError
from taut.entrypoints.errors import GRPC, exit_code_of
from taut.entrypoints.listening import LOOPBACK
from taut.entrypoints.logs import Log, install
from taut.serving.rpc import RpcServer, Service, Upstream

_DRAIN_S: Final = 25.0
_CONNECTIONS: Final = 128


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="taut-grpc", description="the gRPC face of taut's data plane")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="where gRPC listens")
    parser.add_argument(
        "--gateways-port", type=int, required=True, help="where the gateways listen, on the same host"
    )
    parser.add_argument("--ready-fd", type=int, default=-1, help="told `ready` once calls are accepted")
    arguments = parser.parse_args(argv)
    log = Log("grpc-0")
    install(log)
    try:
        asyncio.run(_serve(arguments, log))
    except TautError as error:
        log.last_word(error)
        return exit_code_of(error)
    return 0


async def _serve(arguments: argparse.Namespace, log: Log) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    if arguments.host not in LOOPBACK:
        raise InvalidInput(
            f"gRPC would listen on {arguments.host} without TLS, which is not built yet: use 127.0.0.1"
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    upstream = Upstream(arguments.host, arguments.gateways_port, connections=_CONNECTIONS)
    with contextlib.closing(upstream):
        service = Service(
            upstream, codes=GRPC, log_failure=lambda error: log.failure("request failed", error)
        )
        server = RpcServer(service, arguments.host, arguments.port)
        await server.start()
        if arguments.ready_fd >= 0:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(arguments.ready_fd, b"ready\n")
                os.close(arguments.ready_fd)
        log.info("ready", pid=os.getpid())
        gc.freeze()
        await stop.wait()
        log.info("draining")
        await server.drain(timeout_s=_DRAIN_S)


if __name__ == "__main__":
    sys.exit(main())
