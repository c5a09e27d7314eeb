"""Hops between machines over real TLS: each side is who the other one means, or nothing is asked and nothing answered."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Unavailable
from taut.serving.gateway import GatewayServer, compile_snapshot
from taut.serving.upstream import Secured, Upstream
from taut.testing.records import memory_records
from taut.testing.serving import DataPlane, listen_somewhere, open_gateway
from taut.testing.world import ManualClock
from taut.trust.identity import VerifierData
from taut.trust.svid import LIFE, Issuer, SpiffeId, metadata
from taut.trust.svid.held import HeldFiles
from taut.trust.svid.here import PartsHere
from taut.trust.svid.issuer import whole_second
from taut.trust.tls import LiveTls, TlsFiles, create_authority, issue_client, issue_server

DOMAIN = "taut-1"
CORP = create_authority("corp", days=30, now=datetime.now(UTC))


class Part:
    """One machine: its home, whom it knows to be revoked, and its clock, which may be wrong."""

    def __init__(self, home: Path, issuer: Issuer, who: str) -> None:
        self.files, self.issuer, self.who = (
            HeldFiles(home),
            issuer,
            SpiffeId.parse(f"spiffe://{DOMAIN}/{who}"),
        )
        self.data = VerifierData(issuer="taut", audience="taut", public_keys=())
        self.off = timedelta(0)
        self.here = PartsHere(self.files, now=lambda: datetime.now(UTC) + self.off, data=lambda: self.data)

    def renew(self) -> None:
        key, at = ec.generate_private_key(ec.SECP256R1()), whole_second(datetime.now(UTC))
        chain = self.issuer.issue(self.who, key.public_key(), at=at)
        self.files.write(key, chain, self.issuer.bundle(), now=at)
        assert self.here.look()

    def hears_of(self, machine: str) -> None:
        """A snapshot says that a machine was revoked."""
        since_s = time.time() + 5
        self.data = VerifierData(
            issuer="taut",
            audience="taut",
            public_keys=(),
            tokens_from_s={machine: since_s},
            version=self.data.version + 1,
        )
        self.here.look()

    def way(self, port: int, to: str) -> Upstream:
        def secured() -> Secured:
            context, name = self.here.client_for(to)
            return Secured(context, name, self.here.peer_until_s)

        return Upstream("127.0.0.1", port, connections=4, tls=secured)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = memory_records(metadata)
        self.keys = FileKeys(folder / "keys", random=SystemRandom())
        self.issuer = Issuer(self.records, self.keys, ManualClock(datetime.now(UTC)), domain=DOMAIN)
        self.first, self.m2, self.m3 = (
            self.part(who) for who in ("control/first", "machine/m2", "machine/m3")
        )
        issued = issue_server(CORP, ["localhost"], days=30, now=datetime.now(UTC))
        self.tls = TlsFiles(cert=folder / "c", key=folder / "k")
        for path, data in ((self.tls.cert, issued.cert), (self.tls.key, issued.key)):
            path.write_bytes(data)
            path.chmod(0o600)

    def part(self, who: str) -> Part:
        made = Part(self.folder / who.replace("/", "-"), self.issuer, who)
        made.renew()
        return made

    @contextlib.asynccontextmanager
    async def gateway(self, part: Part) -> AsyncIterator[tuple[GatewayServer, int]]:
        """A gateway of a machine, at whose port the public and other machines come."""
        plane = DataPlane(self.folder / "home", FileKeys(self.folder / "keys", random=SystemRandom()))
        live = LiveTls(self.tls, now=lambda: datetime.now(UTC), parts=part.here)
        with open_gateway(plane.home, SystemRandom()) as gateway:
            gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
            listener = listen_somewhere()
            server = GatewayServer(gateway, listener, tls=live)
            await server.start()
            try:
                yield server, listener.getsockname()[1]
            finally:
                await server.drain(timeout_s=2.0)
                listener.close()


def run(story: Callable[[World], Coroutine[Any, Any, None]], folder: Path) -> None:
    world = World(folder)
    try:
        uvloop.run(story(world))
    finally:
        world.records.close()


async def live(way: Upstream) -> int:
    return (await way.ask("GET", "/v2/health/live", timeout_s=90.0)).status


async def public(port: int, context: ssl.SSLContext, name: str = "localhost") -> str:
    """Ask as somebody who is no part; return how the answer begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        return (await reader.read(15)).decode()
    finally:
        writer.transport.abort()


def trusting(*, hostname: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CORP.cert.decode())
    context.check_hostname = hostname
    return context


def test_machines_ask_each_other_and_the_first_one_and_the_public_shares_the_port(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (_, port):
            for other in (world.first, world.m3):
                way = other.way(port, "m2")
                assert [await live(way), await live(way)] == [200, 200]
                way.close()
            assert await public(port, trusting()) == "HTTP/1.1 200 OK"
        async with world.gateway(world.first) as (_, port):
            way = world.m3.way(port, "")
            assert await live(way) == 200
            way.close()

    run(story, tmp_path)


def test_a_part_that_answers_in_anothers_place_is_asked_nothing(tmp_path: Path) -> None:
    """A machine with a sound identity at another's address; and a stranger with the operator's certificate for that name."""

    async def story(world: World) -> None:
        async with world.gateway(world.m3) as (_, port):
            for to in ("m2", ""):
                with pytest.raises(Unavailable, match="not who was asked for"):
                    await live(world.first.way(port, to))

    run(story, tmp_path)


def test_who_asks_for_a_part_shows_an_identity_of_ours_or_ends_in_the_handshake(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        issued = issue_client(CORP, "m2", days=1, now=datetime.now(UTC))
        (tmp_path / "corp.pem").write_bytes(issued.key + issued.cert)
        bearing, bare = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
        for context in (bearing, bare):
            context.load_verify_locations(cadata=world.issuer.bundle().pem)
        bearing.load_cert_chain(tmp_path / "corp.pem")
        async with world.gateway(world.m2) as (_, port):
            for context in (bearing, bare):
                try:
                    said = await public(port, context, world.m2.who.host)
                except OSError:
                    said = ""
                assert said == ""

    run(story, tmp_path)


def test_a_machine_may_not_speak_to_a_kind_that_the_table_does_not_name(tmp_path: Path) -> None:
    """The first machine's control asks further machines, never another control."""

    async def story(world: World) -> None:
        twin = world.part("control/second")
        async with world.gateway(world.first) as (_, port):
            with pytest.raises(Unavailable):
                await live(twin.way(port, ""))

    run(story, tmp_path)


def test_a_machine_that_was_revoked_loses_its_kept_connection_and_gets_no_other(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (server, port):
            way = world.m3.way(port, "m2")
            assert await live(way) == 200
            world.m2.hears_of("m3")
            server.judge_peers()
            with pytest.raises(Unavailable):
                await live(way)

    run(story, tmp_path)


def test_a_revoked_machine_is_not_asked_by_who_knows_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (_, port):
            world.m3.hears_of("m2")
            with pytest.raises(Unavailable, match="over or was revoked"):
                await live(world.m3.way(port, "m2"))

    run(story, tmp_path)


def test_a_kept_connection_is_not_used_beyond_the_identity_of_its_other_end(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (server, port):
            way = world.m3.way(port, "m2")
            assert await live(way) == 200
            kept = way._idle[0][0]
            assert time.time() < kept.until_s <= time.time() + LIFE.total_seconds() + 1
            kept.until_s = time.time() - 1.0
            assert await live(way) == 200
            assert kept.closed
            world.m2.off = LIFE * 2  # by the clock of the machine that is asked, every identity has ended
            server.judge_peers()
            with pytest.raises(Unavailable):
                await live(way)

    run(story, tmp_path)


def test_an_identity_is_renewed_under_open_connections_also_by_another_root(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (_, port):
            way = world.m3.way(port, "m2")
            assert await live(way) == 200
            world.keys.rotate(purpose="svid")
            world.m2.renew()
            assert await live(way) == 200  # on the connection that it keeps
            way.close()
            with pytest.raises(Unavailable, match="not who was asked for"):
                await live(way)  # it has not heard of the other root yet
            world.m3.renew()
            assert await live(way) == 200
            way.close()

    run(story, tmp_path)


def test_a_home_without_an_identity_serves_the_public_and_asks_nobody_until_it_has_one(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        late = Part(tmp_path / "late", world.issuer, "machine/late")
        assert not late.here.look()
        async with world.gateway(late) as (_, port):
            with pytest.raises(Unavailable, match="holds no identity"):
                await live(late.way(port, "m2"))
            assert await public(port, trusting()) == "HTTP/1.1 200 OK"
            late.renew()
            way = world.m3.way(port, "late")
            assert await live(way) == 200
            way.close()

    run(story, tmp_path)


def test_an_identity_that_was_spoilt_leaves_the_former_one_and_says_so(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with world.gateway(world.m2) as (_, port):
            world.m2.files.own.write_bytes(b"x")
            assert not world.m2.here.look()
            assert "cannot be" in world.m2.here.trouble
            way = world.m3.way(port, "m2")
            assert await live(way) == 200
            way.close()
            world.m2.renew()
            assert world.m2.here.trouble == ""

    run(story, tmp_path)
