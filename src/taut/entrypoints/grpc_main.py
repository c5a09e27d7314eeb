"""The gRPC process: `python -m taut.entrypoints.grpc_main --host 127.0.0.1 --port 8082 --gateways-port 8080`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from typing import Final

from taut.core.errors import InvalidInput, TautError
from taut.entrypoints.errors import GRPC, exit_code_of
from taut.entrypoints.listening import LOOPBACK
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
    try:
        asyncio.run(_serve(arguments))
    except TautError as error:
        print(json.dumps({"code": error.code, "message": error.message}), file=sys.stderr)  # noqa: T201 - a process's own last word
        return exit_code_of(error)
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
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
        service = Service(upstream, codes=GRPC, log_failure=_log_failure)
        server = RpcServer(service, arguments.host, arguments.port)
        await server.start()
        if arguments.ready_fd >= 0:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(arguments.ready_fd, b"ready\n")
                os.close(arguments.ready_fd)
        gc.freeze()
        await stop.wait()
        await server.drain(timeout_s=_DRAIN_S)


def _log_failure(error: BaseException) -> None:
    said = json.dumps({"failure": "".join(traceback.format_exception(error))})
    with contextlib.suppress(OSError):  # the log's disk is full: that must not stop what works
        print(said, file=sys.stderr, flush=True)  # noqa: T201 - the process's log


if __name__ == "__main__":
    sys.exit(main())
