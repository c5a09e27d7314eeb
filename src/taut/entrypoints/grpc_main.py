"""The gRPC process: `python -m taut.entrypoints.grpc_main --host 127.0.0.1 --port 8082 --gateways-port 8080`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from taut.core.errors import TautError
from taut.entrypoints.certificates import add_arguments, kept_fresh, open_tls, paths_of
from taut.entrypoints.errors import GRPC, exit_code_of
from taut.entrypoints.listening import TlsPaths, allow_descriptors, require_secure
from taut.entrypoints.logs import Log, install

ONLY_TLS_1_3: Final[Mapping[str, str]] = {
    # A cipher of TLS 1.2 that asks for a shared secret which nobody has, so that no handshake of 1.2 succeeds; those of
    # 1.3 have ciphers of their own. The library has no other setting for the least version.
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-AES128-CBC-SHA",
    "GRPC_VERBOSITY": "NONE",  # it would log each failed handshake of a stranger
}
"""Settings that grpc reads from the environment when it is loaded, so that they must be there before."""
_DRAIN_S: Final = 25.0
_CONNECTIONS: Final = 128


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="taut-grpc", description="the gRPC face of taut's data plane")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="where gRPC listens")
    parser.add_argument("--shared", action="store_true", help="others of this installation listen there, too")
    parser.add_argument("--name", default="grpc-0", help="of this process, in logs")
    parser.add_argument(
        "--gateways-port", type=int, default=0, help="where gateways listen, on the same host"
    )
    parser.add_argument("--gateways-socket", type=Path, help="where they listen instead, if they speak TLS")
    parser.add_argument("--home", type=Path, help="where the state of certificates is told")
    add_arguments(parser)
    parser.add_argument("--ready-fd", type=int, default=-1, help="told `ready` once calls are accepted")
    arguments = parser.parse_args(argv)
    log = Log(arguments.name)
    install(log)
    try:
        paths = paths_of(arguments)
        if paths is not None:
            os.environ.update(ONLY_TLS_1_3)
        asyncio.run(_serve(arguments, paths, log))
    except TautError as error:
        log.last_word(error)
        return exit_code_of(error)
    return 0


async def _serve(arguments: argparse.Namespace, paths: TlsPaths | None, log: Log) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    from taut.serving.rpc import (  # not before the environment is right
        MAX_CONNECTIONS,
        RpcServer,
        RpcTls,
        Service,
        Upstream,
    )

    require_secure(arguments.host, tls=paths is not None, plane="gRPC")
    live = open_tls(paths)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    upstream = Upstream(
        arguments.host, arguments.gateways_port, path=arguments.gateways_socket, connections=_CONNECTIONS
    )
    tls = None if live is None else RpcTls(live)
    with contextlib.closing(upstream):
        service = Service(
            upstream, codes=GRPC, log_failure=lambda error: log.failure("request failed", error), tls=tls
        )
        room = allow_descriptors() - 2 * _CONNECTIONS  # those to gateways, and files
        server = RpcServer(
            service,
            arguments.host,
            arguments.port,
            tls=tls,
            max_connections=max(1, min(MAX_CONNECTIONS, room)),
            shared=arguments.shared,
        )
        await server.start()
        if arguments.ready_fd >= 0:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(arguments.ready_fd, b"ready\n")
                os.close(arguments.ready_fd)
        log.info("ready", pid=os.getpid())
        gc.freeze()
        home = arguments.home or Path()
        async with kept_fresh(live, home=home, name=arguments.name, log=log, on_renewed=_nothing):
            await stop.wait()
        log.info("draining")
        await server.drain(timeout_s=_DRAIN_S)


def _nothing() -> None:
    """Each handshake and each call asks for what is served now."""


if __name__ == "__main__":
    sys.exit(main())
