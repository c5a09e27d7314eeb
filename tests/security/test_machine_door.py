"""The door at which machines speak to control, over real TLS: who gets in, who does not, and who has to leave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.bootstrap.config import Config
from taut.bootstrap.joined import Joined
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.errors import TautError, Unauthenticated, Unavailable
from taut.entrypoints.api import make_app
from taut.entrypoints.bounded import protocols
from taut.entrypoints.control_server import QuietServer, TlsServer
from taut.entrypoints.membership import Membership, enter
from taut.entrypoints.operations import operation_table
from taut.testing.records import memory_records
from taut.testing.serving import listen_somewhere
from taut.testing.world import ManualClock, SeededRandom
from taut.trust.svid import LIFE, Bundle, Issuer, SpiffeId
from taut.trust.svid.held import HeldFiles
from taut.trust.svid.issuer import whole_second
from taut.trust.svid.tls import PartTls, client_context, server_context
from taut.trust.tls import create_authority, issue_client

HOUR = timedelta(hours=1)
PAST = "no platform runs here"
"""What an operation of machines says behind the door, where there are no gateways."""


class Told(TlsServer):
    """Judges open connections when a test says so, and not each second, so that a test knows which answer is the last."""

    told = False

    def judge_peers(self) -> None:
        if self.told:
            super().judge_peers()


class Control:
    """Control's public port and its door, in a thread. clock: what control goes by; OpenSSL goes by the real one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        (folder / "home").mkdir(mode=0o700, parents=True)
        self.platform = Platform(Config(home=folder / "home"), stack)
        self.platform.records = memory_records(*all_metadata())
        stack.callback(self.platform.records.close)
        self.clock = self.platform.clock = ManualClock(datetime.now(UTC))
        self.parts = self.platform.parts
        self.parts.keep()
        self.tls = self.parts.open_tls()
        public, door = listen_somewhere(), listen_somewhere()
        self.port, self.parts.door = public.getsockname()[1], door.getsockname()[1]
        app = make_app(self.platform, operation_table(), log_failure=lambda *_: None)
        plain, _, parts = protocols(self.platform.ids.new)
        more: dict[str, Any] = {
            "lifespan": "off",
            "access_log": False,
            "log_config": None,
            "timeout_graceful_shutdown": 1,
        }
        self.door = Told(uvicorn.Config(app, http=parts, **more), self.tls)
        self._servers = {QuietServer(uvicorn.Config(app, http=plain, **more)): public, self.door: door}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        stack.callback(self._stop)

    async def _run(self) -> None:
        await asyncio.gather(*(server.serve(sockets=[found]) for server, found in self._servers.items()))

    def _stop(self) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(timeout=90)
        self._loop.close()

    def judge(self) -> None:
        """Do now what the server does each second."""
        done = threading.Event()

        def judge() -> None:
            self.door.told = True
            self.door.judge_peers()
            self.door.told = False
            done.set()

        self._loop.call_soon_threadsafe(judge)
        assert done.wait(30)

    def machine(self, home: Path, name: str = "m2") -> Membership:
        """Let a machine join, as `taut up --join` does."""
        text, _ = self.parts.machines.invite(name, HOUR, actor="ada")
        joined = Joined(control=f"http://127.0.0.1:{self.port}", machine="", instance="0" * 32)
        joined = enter(home, joined, text, now=datetime.now(UTC))
        return Membership(home, joined, now=lambda: datetime.now(UTC), random=SeededRandom(), silence_s=90.0)

    def credential(
        self, folder: Path, *, domain: str = "", kind: str = "machine", at: datetime | None = None
    ) -> ssl.SSLContext:
        """Return the context of somebody with a leaf of control's own issuer."""
        who = SpiffeId.parse(f"spiffe://{domain or self.parts.domain}/{kind}/m9")
        key, issuer = ec.generate_private_key(ec.SECP256R1()), self.parts.machines.issuer
        chain = issuer.issue(who, key.public_key(), at=at or whole_second(datetime.now(UTC)))
        return showing(folder, pem_of(key) + b"".join(map(pem_of_der, chain)), self.parts.files.read_bundle())

    def ask(self, context: ssl.SSLContext, what: str = "fleet/report", **headers: str) -> tuple[int, str]:
        """Ask once at the door; return status and message."""
        with self.connected(context) as connection:
            return asked(connection, what, **headers)

    @contextmanager
    def connected(self, context: ssl.SSLContext) -> Iterator[http.client.HTTPConnection]:
        own = SpiffeId(domain=self.parts.domain, kind="control", name="first")
        raw = socket.create_connection(("127.0.0.1", self.parts.door), timeout=60)
        connection = http.client.HTTPConnection("control")
        try:
            connection.sock = context.wrap_socket(raw, server_hostname=own.host)
            yield connection
        finally:
            connection.close()
            raw.close()


def asked(
    connection: http.client.HTTPConnection, what: str = "fleet/report", **headers: str
) -> tuple[int, str]:
    body = {"instance": "0" * 32, "url": "http://127.0.0.1:2", "gateways": 1}
    connection.request(
        "POST",
        f"/api/v1/{what}",
        json.dumps({**body, "states": "[]"} if what == "fleet/report" else {}),
        headers,
    )
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())["error"]["message"]


def showing(folder: Path, pem: bytes, trusted: Bundle) -> ssl.SSLContext:
    folder.mkdir(exist_ok=True)
    (folder / "shown.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.pem)
    context.load_cert_chain(folder / "shown.pem")
    return context


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem_of_der(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with ExitStack() as stack:
        yield Control(tmp_path_factory.mktemp("control"), stack)


@pytest.fixture
def own(control: Control, tmp_path: Path) -> Iterator[Control]:
    """A control whose clock and keys the test may change."""
    with ExitStack() as stack:
        yield Control(tmp_path / "control", stack)


def refused_in_handshake(control: Control, context: ssl.SSLContext) -> bool:
    try:
        control.ask(context)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return True
    return False


def test_a_machine_gets_in_by_its_identity_alone_over_tls_13_without_sessions(
    control: Control, tmp_path: Path
) -> None:
    with control.machine(tmp_path) as machine:
        context = client_context(HeldFiles(tmp_path).own, machine.held)
        with control.connected(context) as connection:
            assert PAST in asked(connection)[1]
            secured = connection.sock
            assert isinstance(secured, ssl.SSLSocket)
            assert secured.version() == "TLSv1.3"
            assert secured.session is None or not secured.session.has_ticket
        with pytest.raises(Unavailable, match=PAST):
            machine.call("fleet.follow", {"epoch": 0})


def test_who_shows_nothing_or_what_others_issued_ends_in_the_handshake(
    control: Control, tmp_path: Path
) -> None:
    trusted = control.parts.files.read_bundle()
    assert {control.tls.context.verify_mode, control.tls.server.verify_mode} == {ssl.CERT_REQUIRED}
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=trusted.pem)
    assert refused_in_handshake(control, bare)

    now = datetime.now(UTC)
    operators = issue_client(create_authority("corp", days=1, now=now), "m2", days=1, now=now)
    forger = Issuer(
        memory_records(*all_metadata()), FileKeys(tmp_path / "keys", random=SystemRandom()), ManualClock(now),
        domain=control.parts.domain,
    )  # fmt: skip
    key = ec.generate_private_key(ec.SECP256R1())
    who = SpiffeId(domain=forger.domain, kind="machine", name="m2")
    forged = forger.issue(who, key.public_key(), at=whole_second(now))
    for pem in (operators.key + operators.cert, pem_of(key) + b"".join(map(pem_of_der, forged))):
        assert refused_in_handshake(control, showing(tmp_path, pem, trusted))


@pytest.mark.parametrize("ago", [HOUR, -HOUR])
def test_what_has_ended_or_is_not_valid_yet_ends_in_the_handshake(
    control: Control, tmp_path: Path, ago: timedelta
) -> None:
    context = control.credential(tmp_path, at=whole_second(datetime.now(UTC) - ago))
    assert refused_in_handshake(control, context)


def test_tls_12_is_not_spoken(control: Control, tmp_path: Path) -> None:
    context = control.credential(tmp_path)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused_in_handshake(control, context)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"kind": "control"}, "is no machine"),
        ({"domain": "elsewhere"}, "another trust domain"),
        ({}, "was revoked"),
    ],
)
def test_the_wrong_kind_the_wrong_domain_and_a_name_that_never_entered_are_nobody(
    control: Control, tmp_path: Path, words: dict[str, str], why: str
) -> None:
    context = control.credential(
        tmp_path / "shown", domain=words.get("domain", ""), kind=words.get("kind", "machine")
    )
    status, said = control.ask(context)
    assert (status, why in said) == (401, True), said


def test_a_machine_may_ask_for_nothing_but_what_machines_do_whatever_bearer_it_adds(
    control: Control, tmp_path: Path
) -> None:
    control.platform.identity.create_principal("root", kind="service", roles=["admin"], actor="ada")
    bearer, _ = control.platform.identity.create_token("root", ["admin"], HOUR, actor="ada")
    with control.machine(tmp_path, "m4") as machine:
        context = client_context(HeldFiles(tmp_path).own, machine.held)
        for what in ("user/list", "machine/list", "status/show", "secret/list"):
            status, said = control.ask(context, what, authorization=f"Bearer {bearer}")
            assert (status, "people and programs" in said) == (403, True), (what, said)
    plain = http.client.HTTPConnection("127.0.0.1", control.port)
    status, said = asked(plain, authorization=f"Bearer {bearer}")
    plain.close()
    assert (status, "for machines" in said) == (403, True)


def test_a_machine_does_not_speak_to_another_part_in_controls_place(control: Control, tmp_path: Path) -> None:
    """Not to a machine that listens at control's address with an identity that is sound but its own."""
    with control.machine(tmp_path / "m2", "m10") as machine, control.machine(tmp_path / "m3", "m3"):
        files, before = HeldFiles(tmp_path / "m3"), control.tls.server
        control.tls.server = server_context(files.own, files.read())
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            machine.call("fleet.follow", {"epoch": 0})
        control.tls.server = before


def test_a_revoked_machine_is_refused_on_the_connection_that_it_keeps_and_then_let_go(
    control: Control, tmp_path: Path
) -> None:
    with control.machine(tmp_path / "m2", "m8") as machine:
        with control.connected(client_context(HeldFiles(tmp_path / "m2").own, machine.held)) as connection:
            assert PAST in asked(connection)[1]
            control.parts.machines.revoke("m8", actor="ada")
            assert "revoked" in asked(connection)[1]
            control.judge()
            with pytest.raises((OSError, http.client.HTTPException)):
                asked(connection)
        with pytest.raises(Unauthenticated, match=r"revoked.*taut machine invite"):
            machine.call("fleet.follow", {"epoch": 0})


@pytest.mark.parametrize("jump", [LIFE + timedelta(minutes=1), -HOUR])
def test_a_connection_is_kept_no_longer_than_its_identity_and_no_clock_that_jumps_prolongs_it(
    own: Control, tmp_path: Path, jump: timedelta
) -> None:
    with (
        own.machine(tmp_path / "m2") as machine,
        own.connected(client_context(HeldFiles(tmp_path / "m2").own, machine.held)) as connection,
    ):
        assert PAST in asked(connection)[1]
        own.clock.jump(jump)
        assert asked(connection)[0] == 401
        own.judge()
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(connection)


def test_a_machine_renews_for_another_key_and_speaks_with_that(control: Control, tmp_path: Path) -> None:
    with control.machine(tmp_path / "m2", "m5") as machine:
        seen = set()
        for _ in range(4):
            seen.add(machine.held.key().public_key().public_numbers().x)
            machine.renew()
            with pytest.raises(Unavailable, match=PAST):
                machine.call("fleet.follow", {"epoch": 0})
        assert len(seen) == 3  # the key by which it entered is certified once more
        assert machine.held.svid.serial in {row.serial for row in control.parts.machines.list()}


def test_a_machine_that_missed_a_rotation_of_the_root_renews_and_goes_on(
    own: Control, tmp_path: Path
) -> None:
    with own.machine(tmp_path / "m2") as machine:
        before = machine.held.bundle
        own.platform.keys.rotate(purpose="svid")
        own.parts.keep()
        assert own.tls.look()
        for _ in range(2):
            with suppress(Unavailable):
                machine.call("fleet.follow", {"epoch": 0})
        with pytest.raises(Unavailable, match=PAST):
            machine.call("fleet.follow", {"epoch": 0})
        assert machine.held.bundle.sequence > before.sequence


def test_a_machine_keeps_its_identity_as_it_is_due_and_not_before(control: Control, tmp_path: Path) -> None:
    now = [datetime.now(UTC)]
    with control.machine(tmp_path / "m2", "m6") as joined:
        machine = Membership(
            tmp_path / "m2", joined._joined, now=lambda: now[0], random=SeededRandom(), silence_s=90.0
        )
        with machine:
            serial = machine.held.svid.serial
            machine.keep()
            assert machine.held.svid.serial == serial
            now[0] += LIFE * 0.61
            machine.keep()
            assert machine.held.svid.serial != serial
            serial = machine.held.svid.serial
            now[0] -= HOUR  # its clock was set back: what it holds seems not to be valid yet
            with pytest.raises(TautError, match="check both clocks"):
                machine.keep()


def test_the_bundle_is_published_to_everybody(control: Control) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", control.port)
    plain.request("GET", "/.well-known/spiffe/bundle.json")
    found = json.loads(plain.getresponse().read())
    plain.close()
    assert Bundle.from_json(found) == control.parts.files.read_bundle()


def test_what_lies_in_the_home_is_for_its_owner_alone_and_nothing_else_is_believed(
    control: Control, tmp_path: Path
) -> None:
    with control.machine(tmp_path / "m2", "m7") as machine:
        files = HeldFiles(tmp_path / "m2")
        assert {path.stat().st_mode & 0o077 for path in (files.folder, *files.folder.iterdir())} == {0}
        good = files.own.read_bytes()
        spoilt: list[Callable[[], object]] = [
            lambda: files.own.write_bytes(b""),
            lambda: files.own.write_bytes(good[: len(good) // 2]),
            lambda: files.own.chmod(0o644),
            files.own.unlink,
        ]
        for spoil in spoilt:
            spoil()
            with pytest.raises(TautError):
                files.read()
            files.own.unlink(missing_ok=True)
            files.own.write_bytes(good)
            files.own.chmod(0o600)
        assert files.read() == machine.held
        assert isinstance(
            PartTls(files, now=lambda: datetime.now(UTC), judge=lambda _: None).server, ssl.SSLContext
        )
