"""`taut up` with TLS on every address: all planes, all clients of the command line, new certificates, kills under load."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from certs import Certs, TlsLoad, replace, served
from installation import ORDER, Installation, Up, alive, logged_ids, until

from taut.trust.tls import issue_server

pytestmark = pytest.mark.xdist_group("tls-platform")

BODY = json.dumps({"instances": [ORDER]}).encode()
PATH = "/v1/predict/late"


class Secured:
    """A platform that listens on every address, with certificates of `taut tls create`."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.shop = up.installation
        self.folder = up.installation.home / "tls"
        self.ca = str(self.folder / "ca.pem")

    @property
    def data(self) -> str:
        return f"https://localhost:{self.up.port}"

    @property
    def control(self) -> str:
        return f"https://localhost:{self.up.port + 1}"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def grpc_live(self) -> bool:
        credentials = grpc.ssl_channel_credentials(Path(self.ca).read_bytes())
        with grpc.secure_channel(f"localhost:{self.up.port + 2}", credentials) as channel:
            try:
                return bool(
                    channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=60)
                    == b"\x08\x01"
                )
            except grpc.RpcError:
                return False


@pytest.fixture(scope="module")
def it(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    shop = released_template.copy_to(tmp_path_factory.mktemp("secured") / "shop")
    made = shop("tls", "create", "--host", "localhost", "--host", "127.0.0.1")
    # while other machines reach it, files are not enough: what acts here had its identity before
    boss = ("token", "create", "--principal", "boss", "--role", "admin", "--enrol", "service", "--ttl", "1h")
    shop.environ["TAUT_TOKEN"] = shop(*boss)["token"]
    with shop.up(
        gateways=2, words=("--host", "0.0.0.0", "--tls-cert", made["cert"], "--tls-key", made["key"])
    ) as up:
        yield Secured(up)


@pytest.fixture(scope="module")
def admin(it: Secured) -> str:
    return it.shop.environ["TAUT_TOKEN"]


@pytest.fixture(scope="module")
def token(it: Secured) -> str:
    return it.up.token()


def test_without_tls_other_addresses_stay_refused_and_so_do_unfit_files(it: Secured, tmp_path: Path) -> None:
    old = Certs(tmp_path / "old")
    replace(
        old.cert, issue_server(old.authority, ["a"], days=1, now=datetime.now(UTC) - timedelta(days=2)).cert
    )

    def refused(*words: str, exit_code: int = 2, code: str = "invalid_input") -> str:
        words = ("up", "--host", "0.0.0.0", "--port", "0", *words)
        return it.shop.refused(*words, exit_code=exit_code, code=code)

    assert "--tls-cert" in refused()
    assert "--tls-key" in refused("--tls-cert", str(old.cert))
    assert "is not that of" in refused(*old.words())
    replace(old.key, (it.folder / "server.key").read_bytes())
    old.key.chmod(0o644)
    assert "chmod 600" in refused(*old.words(), exit_code=4, code="denied")
    old.renew()
    old.cert.unlink()
    assert "not there" in refused(*old.words(), exit_code=3, code="not_found")


def test_every_plane_is_reached_from_another_address_by_tls_1_3_alone(it: Secured, token: str) -> None:
    own = _own_address() or "127.0.0.1"
    older = it.context()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for port in (it.up.port, it.up.port + 1, it.up.port + 2):
        with (
            socket.create_connection((own, port), timeout=60) as raw,
            it.context().wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            assert secured.version() == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            served(port, older)
        with socket.create_connection((own, port), timeout=60) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " not in plain.recv(1000)
    assert it.grpc_live()


def test_the_network_gives_no_owner_and_no_figures_without_an_identity(it: Secured, admin: str) -> None:
    with httpx.Client(base_url=it.control, verify=it.context(), timeout=60.0) as client:
        for path in ("/api/v1/status/show", "/metrics"):
            assert client.get(path).status_code == 401, path
            spoof = {
                "x-forwarded-for": "127.0.0.1",
                "forwarded": "for=127.0.0.1",
                "taut-break-glass": "please",
            }
            assert client.get(path, headers=spoof).status_code == 401, path
        assert client.get("/livez").status_code == 200
        figures = client.get("/metrics", headers={"authorization": f"Bearer {admin}"}).text
    assert 'taut_tls_certificate_refused{process="gateway-1"} 0.0' in figures
    assert not it.shop("status")["single_user"]  # other machines reach it
    assert oct((it.shop.home / "run" / "gateways.sock").stat().st_mode)[-3:] == "600"


def test_every_command_finds_its_way_here_and_at_a_url(it: Secured, admin: str, token: str) -> None:
    shop, instance = it.shop, json.dumps(ORDER)
    there = ("--tls-ca", it.ca, "--token", admin)
    here = shop("predict", "late", "--data", instance)["predictions"]

    assert shop("status")["data_plane"].startswith("https://")
    assert shop("data", "list", "--url", it.control, *there) == shop("data", "list")
    assert shop("predict", "late", "--data", instance, "--url", it.control, *there)["predictions"] == here
    assert (
        shop("predict", "late", "--data", instance, "--url", it.data, "--tls-ca", it.ca, "--token", token)[
            "predictions"
        ]
        == here
    )
    assert {one["gateway"] for one in shop("top", "--once", "--url", it.control, *there)["gateways"]} == {
        "gateway-0",
        "gateway-1",
    }
    for words in ((), ("--url", it.control, *there)):
        report = shop("load", "late", "--rate", "100", "--duration", "0.3s", *words)
        assert report["errors"] == {}, words
    stranger = shop.refused(
        "data", "list", "--url", it.control, "--token", admin, exit_code=7, code="unavailable"
    )
    assert "--tls-ca" in stranger
    plain = it.control.replace("https", "http")
    assert "https://" in shop.refused(
        "data", "list", "--url", plain, "--token", admin, exit_code=7, code="unavailable"
    )


def test_a_new_certificate_reaches_every_plane_and_doctor_says_how_it_is(it: Secured, token: str) -> None:
    ports = (it.up.port, it.up.port + 1, it.up.port + 2)
    with TlsLoad(it.up.port, token, it.context, BODY, PATH, kept=1, fresh=1) as load:
        load.more(20)
        serial = it.shop("tls", "create", "--days", "10")["serial"]
        os.kill(it.up.pid("supervisor"), signal.SIGHUP)
        until(lambda: all(served(port, it.context()) == serial for port in ports))
        load.more(20)
    assert (load.refused, load.broken) == ([], [])
    assert it.grpc_live()
    found = {finding["name"]: finding for finding in it.shop("doctor")["findings"]}["certificate"]
    assert found["state"] == "warn"
    assert "10 days" in found["said"]
    (it.folder / "server.key").write_text("nothing")
    until(lambda: _doctor(it)["state"] == "bad")
    assert "refuses the files" in _doctor(it)["said"]
    assert it.shop("tls", "create")["hosts"] == ["localhost", "127.0.0.1"]
    until(lambda: _doctor(it)["state"] == "ok")
    assert "certificate expires soon" in it.up.said()


def _doctor(it: Secured) -> dict[str, Any]:
    findings = it.shop.told("doctor").document["findings"]
    return {str(finding["name"]): finding for finding in findings}["certificate"]


@pytest.mark.crash
def test_kill_9_of_each_process_under_tls_load_breaks_only_what_was_under_way(
    it: Secured, token: str
) -> None:
    with TlsLoad(it.up.port, token, it.context, BODY, PATH, kept=2, fresh=1) as load:
        load.more(20)
        for name in ("control", "grpc-0", "gateway-0"):
            broken, pid = len(load.broken), it.up.pid(name)
            it.up.kill(name)
            load.more(20)
            until(lambda name=name, pid=pid: _again(it.up, name, pid), within_s=90)  # type: ignore[misc]  # bound now on purpose
            load.more(20)
            assert len(load.broken) - broken <= (3 if name == "gateway-0" else 0), load.broken
    assert load.refused == []
    assert it.grpc_live()


@pytest.mark.crash
def test_sigterm_of_each_process_under_tls_load_fails_no_request(it: Secured, token: str) -> None:
    with TlsLoad(it.up.port, token, it.context, BODY, PATH, kept=2, fresh=2) as load:
        load.more(20)
        pids = {name: it.up.pid(name) for name in ("control", "grpc-0", "gateway-1")}
        for pid in pids.values():
            os.kill(pid, signal.SIGTERM)
        until(lambda: all(_again(it.up, name, pid) for name, pid in pids.items()))
        load.more(20)
    assert (load.refused, load.broken) == ([], [])
    assert it.grpc_live()
    exits = {child["name"]: child["last_exit"] for child in it.up.state()["children"]}
    assert {exits[name] for name in pids} == {"exit 0"}


@pytest.mark.crash
def test_a_killed_supervisor_leaves_tls_gateways_that_the_next_one_adopts_and_a_stop_drains(
    it: Secured, token: str
) -> None:
    before = {name: it.up.pid(name) for name in ("gateway-0", "gateway-1", "grpc-0")}
    with TlsLoad(it.up.port, token, it.context, BODY, PATH, kept=1, fresh=1) as load:
        load.more(20)
        it.up.kill("supervisor")
        load.more(20)
        plain = it.shop.told(
            "up", "--port", str(it.up.port)
        )  # on loopback, without TLS: not these gateways' place
        assert (plain.code, "0.0.0.0" in plain.error[1]) == (5, True), plain
        it.up.start()
        load.more(20)
        assert {name: it.up.pid(name) for name in before} == before
        assert it.grpc_live()
        assert (load.refused, load.broken) == ([], [])
        process = it.up.process
        assert process is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) == 0
    assert load.refused == []
    assert set(load.answered) <= logged_ids(it.shop.home)
    assert not any(alive(pid) for pid in before.values())


def _again(up: Up, name: str, pid: int) -> bool:
    child = next(child for child in up.state()["children"] if child["name"] == name)
    return child["state"] == "ready" and child["pid"] != pid


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: the kernel only chooses an address
        except OSError:
            return None
        return str(probe.getsockname()[0])
