"""A real gateway that speaks TLS: what it refuses, and certificates and authorities swapped under it."""

from __future__ import annotations

import http.client
import json
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from certs import Certs, TlsLoad, replace, serial_of, served
from test_gateway_process import BODY, logged, wait_until

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.testing.serving import DataPlane, GatewayProcess
from taut.trust.tls import create_authority

pytestmark = pytest.mark.xdist_group("tls-gateway")

PATH = "/v1/predict/delay"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> DataPlane:
    folder = tmp_path_factory.mktemp("tls")
    made = DataPlane(folder / "home", FileKeys(folder / "keys", random=SystemRandom()))
    made.issue(made.endpoint())
    return made


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def gateway(plane: DataPlane, certs: Certs) -> Iterator[GatewayProcess]:
    with GatewayProcess(plane.home) as started:
        started.start(*certs.words())
        yield started


def told(plane: DataPlane) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plane.home / "run" / "gateway-0.tls.json").read_text())
    return found


def events(plane: DataPlane) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (plane.home / "gateway-0.log").read_text().splitlines()]


def test_httpx_curl_and_clients_without_a_server_name_are_answered_over_tls_1_3(
    plane: DataPlane, certs: Certs, gateway: GatewayProcess
) -> None:
    bearer = f"Bearer {plane.token()}"
    with httpx.Client(verify=certs.context(), headers={"authorization": bearer}, timeout=60.0) as client:
        answer = client.post(f"https://localhost:{gateway.port}{PATH}", content=BODY)
    curl = subprocess.run(
        [
            "curl", "-sS", "--tlsv1.3", "--cacert", str(certs.ca), "-H", f"authorization: {bearer}", "-d", BODY.decode(),
            f"https://127.0.0.1:{gateway.port}{PATH}",
        ],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip

    assert answer.status_code == 200
    assert json.loads(curl.stdout)["predictions"] == answer.json()["predictions"]
    assert {answer.headers["taut-request-id"], json.loads(curl.stdout)["request_id"]} <= logged(plane)
    assert served(gateway.port, certs.context(), name=None) == served(gateway.port, certs.context())


def test_tls_1_2_plain_http_and_no_session_to_resume(certs: Certs, gateway: GatewayProcess) -> None:
    older = certs.context()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        served(gateway.port, older)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as plain:
        plain.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(1000)  # closed, with or without an alert
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as raw,
        certs.context().wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert secured.recv(1000).startswith(b"HTTP/1.1 200")
        assert secured.session is None or not secured.session.has_ticket


def test_clients_that_connect_and_say_nothing_do_not_stall_others(
    plane: DataPlane, certs: Certs, gateway: GatewayProcess
) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=60))
            for _ in range(200)
        ]
        half = silent[0]
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a greeting that never ends
        with httpx.Client(verify=certs.context(), timeout=60.0) as client:
            for asked in range(20):
                answer = client.post(
                    f"https://localhost:{gateway.port}{PATH}", content=BODY,
                    headers={"authorization": f"Bearer {plane.token()}"},
                )  # fmt: skip
                assert answer.status_code == 200
                if asked == 0:  # and nobody was hung up for it: a greeting is waited for longer
                    assert select.select([silent[-1]], [], [], 0) == ([], [], [])


def test_a_renewed_certificate_is_served_to_new_connections_and_no_request_fails(
    plane: DataPlane, certs: Certs, gateway: GatewayProcess
) -> None:
    with TlsLoad(gateway.port, plane.token(), certs.context, BODY, PATH) as load:
        load.more()
        for _ in range(2):
            serial = certs.renew()
            wait_until(lambda serial=serial: told(plane)["serial"] == serial)  # type: ignore[misc]  # bound now on purpose
            swapped = time.monotonic()
            load.more()
            assert {shown for began, shown in load.serials if began > swapped} == {serial}

    assert (load.refused, load.broken) == ([], [])
    assert set(load.answered) <= logged(plane)


def test_a_pair_that_is_half_written_or_broken_is_never_served_and_refused_aloud(
    plane: DataPlane, certs: Certs, gateway: GatewayProcess
) -> None:
    assert gateway.process is not None
    before = served(gateway.port, certs.context())
    nexts = certs.issue()
    with TlsLoad(gateway.port, plane.token(), certs.context, BODY, PATH, kept=1, fresh=1) as load:
        replace(certs.cert, nexts.cert)  # the key is still the old one's
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "is not that of the certificate" in told(plane)["refused"])
        load.more(20)
        assert {shown for _, shown in load.serials} == {before}
        replace(certs.key, nexts.key)
        wait_until(lambda: told(plane)["serial"] == serial_of(nexts))
        load.more(20)
        replace(certs.cert, b"-----BEGIN CERTIFICATE-----\nhalf of")
        wait_until(lambda: "broken" in told(plane)["refused"])
        load.more(20)
        replace(certs.cert, nexts.cert)
        wait_until(lambda: told(plane)["refused"] == "")

    assert (load.refused, load.broken) == ([], [])
    assert {shown for _, shown in load.serials} == {before, serial_of(nexts)}
    refused = [event for event in events(plane) if event["event"].startswith("certificate refused")]
    assert len(refused) == 2
    assert "PRIVATE KEY" not in (plane.home / "gateway-0.log").read_text()


def test_a_client_whose_authority_is_removed_is_refused_at_his_next_request(
    plane: DataPlane, tmp_path: Path
) -> None:
    certs = Certs(tmp_path / "certs")
    new = create_authority("new", days=30, now=datetime.now(UTC))
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(certs.authority.cert + new.cert)
    old_client, new_client = certs.client("old"), certs.client("new", new)
    headers = {"authorization": f"Bearer {plane.token()}"}

    def connected(shown: tuple[Path, Path]) -> http.client.HTTPSConnection:
        made = opened(certs.context(shown))
        assert asked(made) == 200
        return made

    def asked(connection: http.client.HTTPSConnection) -> int:
        connection.request("POST", PATH, BODY, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def opened(context: ssl.SSLContext) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection("localhost", one.port, context=context, timeout=60)
        stack.callback(made.close)
        return made

    with ExitStack() as stack, GatewayProcess(plane.home, name="gateway-1") as one:
        one.start(*certs.words(trusted))
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(opened(certs.context()))
        leaving, staying = connected(old_client), connected(new_client)
        trusted.write_bytes(new.cert)
        assert one.process is not None
        one.process.send_signal(signal.SIGHUP)
        state = plane.home / "run" / "gateway-1.tls.json"
        wait_until(lambda: json.loads(state.read_text())["renewals"] == 1)

        assert asked(staying) == 200
        leaving.auto_open = 0
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(leaving)
        with pytest.raises((OSError, http.client.HTTPException)):
            connected(old_client)
        assert asked(connected(new_client)) == 200


@pytest.mark.crash
def test_a_drain_over_tls_finishes_what_is_under_way_and_is_not_held_up_by_idle_clients(
    plane: DataPlane, certs: Certs, gateway: GatewayProcess
) -> None:
    with ExitStack() as stack:
        idle = stack.enter_context(httpx.Client(verify=certs.context(), timeout=60.0))
        assert idle.get(f"https://localhost:{gateway.port}/v2").status_code == 200
        second = stack.enter_context(
            GatewayProcess(plane.home, name="gateway-2", listener=gateway.listener.dup())
        )
        second.start(*certs.words())
        load = stack.enter_context(TlsLoad(gateway.port, plane.token(), certs.context, BODY, PATH))
        load.more()
        began = time.monotonic()
        code = gateway.kill(signal.SIGTERM)
        took_s = time.monotonic() - began
        load.more()
        load.__exit__()

    assert code == 0
    assert took_s < 20  # where an idle client held it up, it would take its 25 s
    assert load.refused == []
    assert load.broken == []
    assert set(load.answered) <= logged(plane)
