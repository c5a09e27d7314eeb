"""A real gateway process, real HTTP clients: pushes, drain, kill -9, restart without control."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from processes import LINGER_S, Sent
from taut.serving.predictions import PredictionReader
from taut.serving.snapshot import EndpointConfig, Publisher
from taut.testing.serving import DataPlane, GatewayProcess, matrix_model, matrix_signature

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
BODY = json.dumps({"instances": [INSTANCE]}).encode()


@pytest.fixture
def running(plane: DataPlane) -> Iterator[GatewayProcess]:
    plane.issue(plane.endpoint())
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        yield gateway


def client(gateway: GatewayProcess, bearer: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{gateway.port}",
        headers={"authorization": f"Bearer {bearer}"},
        timeout=60.0,
    )


class Load:
    """Clients that ask without pause; `answered` are the request ids that were acknowledged with 200.

    `broken` counts requests without an answer; but `late` those that a busy machine sent later than a gateway waits.
    """

    def __init__(self, port: int, bearer: str, *, clients: int = 4) -> None:
        self.port, self.bearer = port, bearer
        self.answered: list[str] = []
        self.epochs: set[str] = set()
        self.refused: list[tuple[int, bytes]] = []
        self.broken = self.late = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)

    def _run(self) -> None:
        headers = {"authorization": f"Bearer {self.bearer}", "content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        asked_s = time.monotonic()
        while not self._stop.is_set():
            before_s, asked_s = asked_s, math.inf
            try:
                connection.request("POST", "/v1/predict/delay", BODY, headers)
                asked_s = time.monotonic()
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                asked_s = min(asked_s, time.monotonic())
                self.broken += asked_s - before_s < LINGER_S
                self.late += asked_s - before_s >= LINGER_S
                connection.close()
                time.sleep(0.005)
                continue
            if response.status == 200:
                self.epochs.add(response.headers["taut-policy-epoch"])
                self.answered.append(json.loads(body)["request_id"])
            else:
                self.refused.append((response.status, body))
        connection.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def logged(plane: DataPlane) -> set[str]:
    return {record.request_id for record in PredictionReader(plane.home / "log" / "predictions").records()}


def test_a_client_is_answered_over_http_with_token_and_with_api_key(
    plane: DataPlane, running: GatewayProcess
) -> None:
    for bearer in (plane.token(), plane.api_key):
        with client(running, bearer) as http_client:
            assert http_client.get("/v2/health/ready").json() == {"ready": True}
            answer = http_client.post("/v1/predict/delay", json={"instances": [INSTANCE]})
            infer = http_client.post(
                "/v2/models/delay/infer",
                json={
                    "inputs": [
                        {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 0.5, -0.25]}
                    ]
                },
            )

        assert answer.status_code == infer.status_code == 200
        assert answer.json()["predictions"][0]["probability"] == infer.json()["outputs"][1]["data"][1]
        assert answer.headers["taut-request-id"] in logged(plane)


def test_a_push_reaches_a_gateway_under_load_within_a_second_and_nothing_fails(
    plane: DataPlane, running: GatewayProcess
) -> None:
    took_s = []
    with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:
        wait_until(lambda: len(publisher.gateways()) == 1)
        with Load(running.port, plane.token()) as load:
            for number in range(5):
                model = matrix_model(3, bias=float(number))
                served = plane.served(model, matrix_signature(3), version=f"delay@{number + 2}")
                statement = plane.sign(plane.snapshot(EndpointConfig(name="delay", live=served)))
                start = time.perf_counter()
                snapshot = publisher.publish(statement)
                [state] = publisher.wait(snapshot.epoch, timeout_s=60.0)
                took_s.append(time.perf_counter() - start)
                assert state.serving == snapshot.epoch
            wait_until(lambda: str(snapshot.epoch) in load.epochs)

    assert min(took_s) < 1.0  # others may want the processors too; whoever polled would be late each time
    assert (load.refused, load.broken) == ([], 0)
    assert set(load.answered) <= logged(plane)


def test_a_gateway_serves_on_and_restarts_while_control_is_dead(
    plane: DataPlane, running: GatewayProcess
) -> None:
    with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:
        wait_until(lambda: len(publisher.gateways()) == 1)
        publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))
        publisher.wait(2, timeout_s=60.0)

    with client(running, plane.token()) as http_client:
        assert http_client.post("/v1/predict/delay", content=BODY).headers["taut-policy-epoch"] == "2"
    running.kill()
    running.start()
    with client(running, plane.token()) as http_client:
        assert http_client.post("/v1/predict/delay", content=BODY).headers["taut-policy-epoch"] == "2"


@pytest.mark.crash
def test_what_was_answered_before_a_kill_9_is_in_the_prediction_log(
    plane: DataPlane, running: GatewayProcess
) -> None:
    with Load(running.port, plane.token()) as load:
        for _ in range(3):
            before = len(load.answered)
            wait_until(lambda before=before: len(load.answered) > before + 150)  # type: ignore[misc]  # bound now on purpose
            running.kill()
            running.start()

    assert len(load.answered) > 450
    assert load.refused == []
    assert set(load.answered) <= logged(plane)


def test_a_drain_finishes_what_is_under_way_and_exits_0(plane: DataPlane, running: GatewayProcess) -> None:
    with GatewayProcess(plane.home, name="gateway-1", listener=running.listener.dup()) as second:
        second.start()
        with Load(running.port, plane.token(), clients=8) as load:
            wait_until(lambda: len(load.answered) > 300)
            assert running.kill(signal.SIGTERM) == 0
            done = len(load.answered)
            wait_until(lambda: len(load.answered) > done + 300)
        code = second.kill(signal.SIGTERM)

    assert code == 0
    assert (load.refused, load.broken) == ([], 0)
    assert set(load.answered) <= logged(plane)


def test_a_request_whose_body_is_still_arriving_is_answered_during_the_drain(
    plane: DataPlane, running: GatewayProcess
) -> None:
    head = (
        f"POST /v1/predict/delay HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {plane.token()}\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    ).encode()
    with (
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)) as watching,
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as half,
    ):
        assert not _is_leaving(watching)
        half.sendall(head + BODY[:10])
        wait_until(lambda: Sent(half).was_read)
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _is_leaving(watching))
        time.sleep(2 * LINGER_S)
        half.sendall(BODY[10:])
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := half.recv(65_536):
                answer += part

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    assert running.process.wait(timeout=90) == 0


def _is_leaving(kept: http.client.HTTPConnection) -> bool:
    """Whether a gateway lets a connection go that it kept before."""
    try:
        kept.request("GET", "/v2/health/live")
        answer = kept.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return True
    return answer.getheader("connection") == "close"


def test_a_gateway_without_any_snapshot_is_up_and_says_why_it_is_not_ready(plane: DataPlane) -> None:
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        with client(gateway, plane.token()) as http_client:
            live, ready = http_client.get("/v2/health/live"), http_client.get("/v2/health/ready")
            refused = http_client.post("/v1/predict/delay", content=BODY)

            with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:
                publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))
                wait_until(lambda: http_client.get("/v2/health/ready").status_code == 200)
                served = http_client.post("/v1/predict/delay", content=BODY)

    assert (live.status_code, ready.status_code, refused.status_code) == (200, 503, 503)
    assert ready.json()["reasons"] == ["no snapshot: control has not issued one yet"]
    assert "retry-after" in refused.headers
    assert served.status_code == 200


def test_power_safe_answers_of_many_clients_share_the_disks_time(plane: DataPlane) -> None:
    plane.issue(plane.endpoint(audit="power-safe"))
    with GatewayProcess(plane.home) as gateway:
        gateway.start("--segment-bytes", "65536")
        with Load(gateway.port, plane.token(), clients=8) as load:
            wait_until(lambda: len(load.answered) > 400, timeout_s=40.0)

    assert (load.refused, load.broken) == ([], 0)
    assert set(load.answered) <= logged(plane)
