"""Who is told from here is who was declared: over TLS, at the address that was looked at, and never the machine's own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from taut.adapters.mail import SmtpMail
from taut.adapters.outbound import reachable
from taut.adapters.web import HttpxWeb
from taut.core.errors import Denied, InvalidInput, Unavailable
from taut.ports.mail import Letter, MailServer
from taut.trust.tls import create_authority, issue_server

LETTER = Letter(
    id="<n1@taut.invalid>", sender="taut@example.org", to=("ops@example.org",), subject="hello", text="é\n"
)


HERE = reachable("localhost", 1, inside=True)
"""Where `localhost` is tried first on this machine."""


class Listener(HTTPServer):
    address_family = socket.AF_INET6 if ":" in HERE else socket.AF_INET


class Believed:
    """A server's certificate, and a client that believes its authority."""

    def __init__(self, folder: Path) -> None:
        authority = create_authority("test", days=2, now=datetime.now(UTC))
        pair = issue_server(authority, ("localhost",), days=1, now=datetime.now(UTC))
        (folder / "cert.pem").write_bytes(pair.cert)
        (folder / "key.pem").write_bytes(pair.key)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.client = ssl.create_default_context(cadata=authority.cert.decode())


@pytest.fixture(scope="module")
def believed(tmp_path_factory: pytest.TempPathFactory) -> Believed:
    return Believed(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "2002:a9fe:a9fe::1"],
)  # fmt: skip
def test_what_belongs_to_the_machine_or_its_cloud_is_never_told(host: str) -> None:
    for inside in (False, True):
        with pytest.raises(Denied):
            reachable(host, 443, inside=inside)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "fd12::1", "100.64.0.1"]
)
def test_a_private_network_is_told_only_where_that_is_declared(host: str) -> None:
    with pytest.raises(Denied, match="inside=True"):
        reachable(host, 443, inside=False)
    assert reachable(host, 443, inside=True) == host


def test_everybody_elses_address_is_taken_and_a_name_without_one_is_not() -> None:
    assert reachable("8.8.8.8", 443, inside=False) == "8.8.8.8"
    with pytest.raises(Unavailable):
        reachable("x" * 64, 443, inside=False)  # no name at all, so that nobody need be asked


class Posted(BaseHTTPRequestHandler):
    """Takes what is posted; says what its path says."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.taken.append((dict(self.headers), body))  # type: ignore[attr-defined]  # set by `listening`
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("location", "http://127.0.0.1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def listening(believed: Believed) -> Iterator[HTTPServer]:
    server = Listener((HERE, 0), Posted)
    server.taken = []  # type: ignore[attr-defined]  # where `Posted` puts what came
    server.socket = believed.server.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_posted_over_tls_under_its_own_name_and_no_redirect_is_followed(
    believed: Believed, listening: HTTPServer
) -> None:
    web, port = HttpxWeb(believed.client), listening.server_address[1]
    answer = web.send(f"https://localhost:{port}/hook/204", b"{}", {"webhook-id": "n1"}, inside=True)
    moved = web.send(f"https://localhost:{port}/hook/302", b"{}", {}, inside=True)

    assert (answer.status, moved.status) == (204, 302)
    (headers, body), _ = listening.taken  # type: ignore[attr-defined]  # set by the fixture
    assert (body, headers["webhook-id"], headers["host"]) == (b"{}", "n1", f"localhost:{port}")


def test_a_server_that_nobody_vouches_for_is_told_nothing(listening: HTTPServer) -> None:
    with pytest.raises(Unavailable, match="localhost does not answer"):
        HttpxWeb().send(f"https://localhost:{listening.server_address[1]}/200", b"{}", {}, inside=True)
    assert listening.taken == []  # type: ignore[attr-defined]  # set by the fixture


@pytest.mark.parametrize(
    ("url", "refused"),
    [("http://10.0.0.1/x", Denied), ("https://127.0.0.1/x", Denied), ("ftp://example.org", InvalidInput)],
)
def test_what_is_no_place_to_tell_is_refused_before_anything_is_sent(
    url: str, refused: type[Exception]
) -> None:
    with pytest.raises(refused):
        HttpxWeb().send(url, b"{}", {}, inside=url.startswith("http:"))


class Letters:
    """Keeps what a mail server takes; refuses `refused@…`."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    async def handle_RCPT(  # noqa: N802 - a name of aiosmtpd's
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address.startswith("refused"):
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - likewise
        self.taken.append(envelope)
        return "250 taken"


def _login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=isinstance(data, LoginPassword) and data.password == b"right", handled=False)


@pytest.fixture(params=["smtps", "smtp"])
def post(request: pytest.FixtureRequest, believed: Believed) -> Iterator[tuple[str, Letters]]:
    """A mail server on a loop of its own, with TLS from the first byte or after STARTTLS."""
    letters, loop, at_once = Letters(), asyncio.new_event_loop(), request.param == "smtps"

    def session() -> SMTP:
        if at_once:  # which it does not see, so that it would not take a password
            return SMTP(letters, hostname="localhost", loop=loop)
        return SMTP(
            letters, hostname="localhost", authenticator=_login, auth_required=True, loop=loop,
            tls_context=believed.server, require_starttls=True,
        )  # fmt: skip

    made = loop.create_server(session, HERE, 0, ssl=believed.server if at_once else None)
    server = loop.run_until_complete(made)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"{request.param}://localhost:{server.sockets[0].getsockname()[1]}", letters
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.run_until_complete(server.wait_closed())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def test_a_letter_is_handed_in_over_tls_and_under_its_own_id(
    believed: Believed, post: tuple[str, Letters]
) -> None:
    url, letters = post
    user, password = ("taut", "right") if url.startswith("smtp:") else ("", "")
    server = MailServer(url=url, user=user, password=password, inside=True)
    SmtpMail(believed.client).send(server, LETTER)

    (taken,) = letters.taken
    assert (taken.mail_from, taken.rcpt_tos) == ("taut@example.org", ["ops@example.org"])
    assert b"Message-ID: <n1@taut.invalid>" in taken.content
    with pytest.raises(Unavailable):
        SmtpMail(ssl.create_default_context()).send(server, LETTER)
    with pytest.raises(Denied):
        SmtpMail(believed.client).send(MailServer(url=url), LETTER)
    half = msgspec.structs.replace(LETTER, to=("refused@example.org", "ops@example.org"))
    with pytest.raises(Unavailable, match="refused@"):
        SmtpMail(believed.client).send(server, half)


@pytest.mark.parametrize("post", ["smtp"], indirect=True)
def test_whom_the_server_does_not_know_hands_nothing_in_and_his_password_is_not_said(
    believed: Believed, post: tuple[str, Letters]
) -> None:
    url, letters = post
    for user, password in (("taut", "wrong-secret"), ("", "")):
        with pytest.raises(Unavailable, match="does not take the letter") as raised:
            SmtpMail(believed.client).send(
                MailServer(url=url, user=user, password=password, inside=True), LETTER
            )
        assert "wrong-secret" not in str(raised.value)
    assert letters.taken == []
