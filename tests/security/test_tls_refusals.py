"""TLS at a gateway's own socket: silent clients are let go, clients' certificates end, and so do their connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
import uvloop
from attacker import until

from authorities import authority_with
from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.entrypoints.control_server import TlsServer
from taut.entrypoints.errors import GRPC
from taut.serving.gateway import GatewayServer, compile_snapshot
from taut.serving.rpc import RpcServer, RpcTls, Service, Upstream
from taut.serving.upstream import Answer
from taut.testing.serving import DataPlane, listen_somewhere, open_gateway
from taut.trust.tls import LiveTls, TlsFiles, create_authority, issue_client, issue_server

NOW = datetime.now(UTC)
AUTHORITY = create_authority("own", days=30, now=NOW)
STRANGE = create_authority("strange", days=30, now=NOW)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    issued = issue_server(AUTHORITY, ["localhost"], days=30, now=NOW)
    found = TlsFiles(cert=tmp_path / "c", key=tmp_path / "k", client_ca=tmp_path / "ca")
    for path, data in ((found.cert, issued.cert), (found.key, issued.key), (found.client_ca, AUTHORITY.cert)):
        assert path is not None
        path.write_bytes(data)
        path.chmod(0o600)
    return found


@contextlib.asynccontextmanager
async def serving(folder: Path, live: LiveTls, **more: Any) -> AsyncIterator[tuple[GatewayServer, int]]:
    plane = DataPlane(folder / "home", FileKeys(folder / "keys", random=SystemRandom()))
    with open_gateway(plane.home, SystemRandom()) as gateway:
        gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        listener = listen_somewhere()
        server = GatewayServer(gateway, listener, tls=live, **more)
        await server.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            await server.drain(timeout_s=2.0)
            listener.close()


def shown(folder: Path, *, days: float = 9, by: str = "own") -> ssl.SSLContext:
    """The context of a client with a certificate of an authority, which ends after some days."""
    authority = {"own": AUTHORITY, "strange": STRANGE}[by]
    issued = issue_client(authority, "bob", days=10, now=NOW - timedelta(days=10 - days))
    (folder / "bob.pem").write_bytes(issued.cert)
    (folder / "bob.key").write_bytes(issued.key)
    context = ssl.create_default_context(cadata=AUTHORITY.cert.decode())
    context.load_cert_chain(folder / "bob.pem", folder / "bob.key")
    return context


def ask(secured: ssl.SSLSocket) -> bytes:
    """Ask once on a connection; return how the answer begins, nothing where there is none."""
    try:
        secured.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        return secured.recv(4096)[:12]  # one record, read whole
    except OSError:
        return b""


@contextlib.contextmanager
def connected(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        yield secured


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16\x03\x01"])
def test_a_handshake_that_never_ends_is_ended(tmp_path: Path, files: TlsFiles, said: bytes) -> None:
    def wait(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=40) as silent:
            silent.sendall(said)
            return silent.recv(10)

    async def run() -> bytes:
        live = LiveTls(files, now=lambda: NOW)
        async with serving(tmp_path, live, handshake_timeout_s=0.5) as (_, port):
            return await asyncio.to_thread(wait, port)

    assert uvloop.run(run()) == b""


def test_strange_and_absent_certificates_of_clients_end_in_the_handshake(
    tmp_path: Path, files: TlsFiles
) -> None:
    def one(port: int, context: ssl.SSLContext) -> bytes:
        with connected(port, context) as secured:
            return ask(secured)

    async def run() -> list[bytes]:
        async with serving(tmp_path, LiveTls(files, now=lambda: NOW)) as (_, port):
            nobody = ssl.create_default_context(cadata=AUTHORITY.cert.decode())
            contexts = [shown(tmp_path), shown(tmp_path, by="strange"), nobody]
            return [await asyncio.to_thread(one, port, context) for context in contexts]

    assert uvloop.run(run()) == [b"HTTP/1.1 200", b"", b""]


def test_a_connection_ends_with_its_clients_authority_or_with_his_certificate(
    tmp_path: Path, files: TlsFiles
) -> None:
    async def run() -> list[bytes]:
        live = LiveTls(files, now=lambda: NOW)
        async with serving(tmp_path, live) as (server, port):
            with contextlib.ExitStack() as stack:
                many = await asyncio.to_thread(
                    lambda: [stack.enter_context(connected(port, shown(tmp_path))) for _ in range(2)]
                )
                heard = [await asyncio.to_thread(ask, one) for one in many]
                assert files.client_ca is not None
                files.client_ca.write_bytes(AUTHORITY.cert + STRANGE.cert)
                assert live.look() == "renewed"
                server.judge_peers()
                heard.append(await asyncio.to_thread(ask, many[0]))
                files.client_ca.write_bytes(STRANGE.cert)
                assert live.look() == "renewed"
                server.judge_peers()
                return [*heard, await asyncio.to_thread(ask, many[1])]

    assert uvloop.run(run()) == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 200", b""]


def test_a_client_whose_certificate_ends_is_let_go_by_the_sweeper(tmp_path: Path, files: TlsFiles) -> None:
    async def run() -> tuple[bytes, bytes]:
        async with serving(tmp_path, LiveTls(files, now=lambda: NOW)) as (_, port):
            soon = (datetime.now(UTC) - NOW).total_seconds() + 5
            context = shown(tmp_path, days=soon / 86_400)

            def talk() -> tuple[bytes, bytes]:
                with connected(port, context) as secured:
                    first = ask(secured)
                    try:
                        return first, secured.recv(1)
                    except ConnectionError:
                        return first, b""

            return await asyncio.to_thread(talk)

    assert uvloop.run(run()) == (b"HTTP/1.1 200", b"")


def test_idle_clients_that_never_say_goodbye_make_room_for_others(tmp_path: Path, files: TlsFiles) -> None:
    def crowd(port: int, context: ssl.SSLContext) -> None:
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(connected(port, context)) for _ in range(6)]
            assert {ask(one) for one in idle} == {b"HTTP/1.1 200"}
            time.sleep(1.2)  # so that they count as idle

            def served() -> bool:
                with contextlib.suppress(OSError), connected(port, context) as one:
                    return ask(one) == b"HTTP/1.1 200"
                return False

            for _ in range(8):
                until(served)  # those that were closed have a moment to say goodbye
            until(lambda: any(map(closed, idle)))

    def closed(one: ssl.SSLSocket) -> bool:
        one.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            return one.recv(1) == b""
        return False

    async def run() -> None:
        async with serving(tmp_path, LiveTls(files, now=lambda: NOW), max_connections=6) as (server, port):
            await asyncio.to_thread(crowd, port, shown(tmp_path))
            await asyncio.to_thread(until, lambda: len(server._state.connections) <= 6)

    uvloop.run(run())


def test_a_grpc_call_of_a_client_whose_authority_is_removed_is_refused_on_its_open_channel(
    tmp_path: Path, files: TlsFiles
) -> None:
    async def run() -> list[grpc.StatusCode]:
        live = LiveTls(files, now=lambda: NOW)
        tls = RpcTls(live, now=lambda: NOW)
        service = Service(Ready(), codes=GRPC, log_failure=print, tls=tls)
        server = RpcServer(service, "127.0.0.1", 0, tls=tls)
        await server.start()
        shown(tmp_path)
        credentials = grpc.ssl_channel_credentials(
            AUTHORITY.cert, (tmp_path / "bob.key").read_bytes(), (tmp_path / "bob.pem").read_bytes()
        )
        root = authority_with("root", now=NOW)
        between = authority_with("between", above=root, now=NOW)
        deep = issue_client(between, "eve", days=3, now=NOW)
        behind = grpc.ssl_channel_credentials(AUTHORITY.cert, deep.key, deep.cert + between.cert)

        async def call(channel: grpc.aio.Channel) -> grpc.StatusCode:
            found: grpc.StatusCode = await channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(
                b"", timeout=30
            ).code()
            return found

        async with (
            grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as kept,
            grpc.aio.secure_channel(
                f"localhost:{server.port}", grpc.ssl_channel_credentials(AUTHORITY.cert)
            ) as bare,
            grpc.aio.secure_channel(f"127.0.0.1:{server.port}", behind, options=NAMED) as far,
        ):
            codes = [await call(kept), await call(bare)]
            assert files.client_ca is not None
            files.client_ca.write_bytes(root.cert + AUTHORITY.cert)
            assert live.look() == "renewed"
            codes += [await call(kept), await call(far)]
            files.client_ca.write_bytes(STRANGE.cert + root.cert)
            assert live.look() == "renewed"
            codes += [await call(kept), await call(far)]
            async with grpc.aio.secure_channel(
                f"127.0.0.1:{server.port}", credentials, options=NAMED
            ) as fresh:
                codes.append(await call(fresh))
        await server.drain(timeout_s=1.0)
        return codes

    code = grpc.StatusCode
    assert asyncio.run(run()) == [
        code.OK, code.UNAVAILABLE, code.OK, code.OK, code.UNAUTHENTICATED, code.OK, code.UNAVAILABLE,
    ]  # fmt: skip


NAMED = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]


class Ready(Upstream):
    """Gateways that are ready, whoever asks."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 1, connections=1)

    async def ask(
        self, method: str, path: str, headers: Any = (), body: bytes = b"", *, timeout_s: float
    ) -> Answer:
        return Answer(200, {}, b'{"ready":true}')


def test_control_lets_go_of_a_client_whose_authority_is_removed_and_of_one_that_never_greets(
    tmp_path: Path, files: TlsFiles
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> list[bytes]:
        live = LiveTls(files, now=lambda: NOW)
        config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=5)
        server = TlsServer(config, live, handshake_s=0.5)
        listener = listen_somewhere()
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        with contextlib.ExitStack() as stack:
            one = await asyncio.to_thread(stack.enter_context, connected(port, shown(tmp_path)))
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=8))
            heard = [await asyncio.to_thread(ask, one), await asyncio.to_thread(silent.recv, 10)]
            assert files.client_ca is not None
            files.client_ca.write_bytes(STRANGE.cert)
            assert live.look() == "renewed"
            server.judge_peers()
            heard.append(await asyncio.to_thread(ask, one))
        server.should_exit = True
        await serving
        return heard

    assert asyncio.run(run()) == [b"HTTP/1.1 200", b"", b""]


def test_a_handshake_that_is_under_way_when_the_drain_begins_is_finished_and_answered(
    tmp_path: Path, files: TlsFiles
) -> None:
    def ended(one: ssl.SSLObject, coming: ssl.MemoryBIO) -> bytes:
        try:
            return one.read(4096)
        except ssl.SSLWantReadError:
            return b""

    async def run() -> bytes:
        async with serving(tmp_path, LiveTls(files, now=lambda: NOW)) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
            one = shown(tmp_path).wrap_bio(coming, going, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
            writer.write(going.read())
            coming.write(await reader.read(65_536))
            drain = asyncio.create_task(server.drain(timeout_s=30.0))
            await asyncio.sleep(0.1)
            one.do_handshake()
            one.write(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
            writer.write(going.read())
            heard = b""
            while not heard and (data := await reader.read(65_536)):
                coming.write(data)
                heard = ended(one, coming)
            writer.close()
            assert await drain
            return heard

    heard = uvloop.run(run())
    assert heard.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in heard
