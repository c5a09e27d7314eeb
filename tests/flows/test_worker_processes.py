"""Models in worker processes of a real gateway: killed, stopped, starved and asked for too much while clients ask."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from processes import Sent, children, family, ready_workers, stands_still, workers
from taut.serving.meters import decode_reading
from taut.serving.predictions import PredictionReader
from taut.serving.snapshot import GatewaySettings, PreviousVersion, Publisher
from taut.testing.serving import DataPlane, GatewayProcess, greedy_model, matrix_model, matrix_signature

ROW = {"instances": [{"x0": 0.5, "x1": 0.25, "x2": -0.25}]}


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[GatewayProcess]:
    with GatewayProcess(plane.home) as gateway:
        yield gateway
    until(lambda: not family(gateway.process.pid if gateway.process else 0), "workers outlived their gateway")


def until(holds: Callable[[], bool], otherwise: str, *, timeout_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.01)


class Client:
    """Asks one gateway; counts the answers by status."""

    def __init__(self, plane: DataPlane, gateway: GatewayProcess) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.port}",
            headers={"authorization": f"Bearer {plane.token()}"},
            timeout=60.0,
        )

    def ask(self, endpoint: str = "delay", *, deadline_ms: int = 5000, body: Any = ROW) -> httpx.Response:
        return self._http.post(
            f"/v1/predict/{endpoint}", json=body, headers={"taut-deadline-ms": str(deadline_ms)}, timeout=60
        )

    def ready(self) -> bool:
        return self._http.get("/v2/health/ready").status_code == 200

    def close(self) -> None:
        self._http.close()


def asking(plane: DataPlane, gateway: GatewayProcess, during: Callable[[], None], *, n: int = 4) -> list[int]:
    """Ask from n connections while `during` runs; return the statuses."""
    stop = threading.Event()

    def run(_: int) -> list[int]:
        client = Client(plane, gateway)
        found = []
        while not stop.is_set():
            found.append(client.ask().status_code)
        client.close()
        return found

    with ThreadPoolExecutor(n) as pool:
        asked = [pool.submit(run, number) for number in range(n)]
        try:
            during()
        finally:
            stop.set()
        return [status for one in asked for status in one.result()]


def test_a_worker_answers_what_the_gateway_itself_would(plane: DataPlane, gateway: GatewayProcess) -> None:
    here, there = (
        plane.endpoint(name="here", runtime="inline"),
        plane.endpoint(name="there", runtime="worker"),
    )
    risky = plane.endpoint(name="risky", risk="high", workers=2)
    plane.issue(here, there, risky)
    gateway.start()
    client = Client(plane, gateway)
    body = {"instances": [{"x0": n / 10, "x1": n, "x2": -n} for n in range(3000)]}

    answers = [client.ask(name, body=body) for name in ("here", "there", "risky")]

    assert [answer.status_code for answer in answers] == [200, 200, 200], [one.text[:200] for one in answers]
    predictions = [answer.json()["predictions"] for answer in answers]
    assert predictions[0] == predictions[1] == predictions[2]
    assert len(workers(gateway)) == 3
    assert client.ask("there", body={"instances": [{"x0": "a", "x1": 1, "x2": 2}]}).status_code == 422
    client.close()


def test_workers_stand_back_for_their_gateway(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    gateway.start()
    (worker,) = workers(gateway)
    assert gateway.process is not None

    client = Client(plane, gateway)
    assert client.ask().status_code == 200
    client.close()

    own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (gateway.process.pid, worker))

    assert (its, own) == (min(19, own + 5), os.getpriority(os.PRIO_PROCESS, 0))


def test_a_worker_holds_no_secret_no_file_and_no_network(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    os.environ["TAUT_TEST_SECRET"] = "planted"
    try:
        gateway.start()
    finally:
        del os.environ["TAUT_TEST_SECRET"]
    (worker,) = workers(gateway)
    proc = Path(f"/proc/{worker}")
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )

    assert b"planted" not in (proc / "environ").read_bytes()
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == 0
    kinds = sorted(os.readlink(one).partition(":")[0] for one in (proc / "fd").iterdir())
    assert [kind for kind in kinds if kind not in ("/dev/null", "pipe")] == [
        str(plane.home / "gateway-0.log"), str(plane.home / "gateway-0.log"), "socket",
    ]  # fmt: skip
    assert len((proc / "net" / "dev").read_text().splitlines()) <= 3  # two of headings, and loopback


def test_a_killed_worker_costs_no_answer_and_is_replaced(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker", workers=2))
    gateway.start()
    before = workers(gateway)

    def kill_some() -> None:  # one after the other: who loses two of them has used up his second try
        for _ in range(5):
            time.sleep(0.1)
            victim = ready_workers(gateway)[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: len(set(ready_workers(gateway)) - {victim}) == 2, "not replaced")

    statuses = asking(plane, gateway, kill_some)

    assert len(statuses) > 10
    assert set(statuses) == {200}  # what was in flight was asked again
    assert not set(before) & set(workers(gateway))


def test_a_worker_that_hangs_is_killed_and_its_request_gets_the_fallback(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    live = plane.served(matrix_model(3), matrix_signature(3), version="delay@2")
    before = plane.served(matrix_model(3, bias=1.0), matrix_signature(3), version="delay@1")
    endpoint = plane.endpoint(runtime="worker")
    plane.issue(
        type(endpoint)(name="delay", live=live, fallbacks=(PreviousVersion(model=before),), runtime="worker"),
        settings=GatewaySettings(worker_hang_s=0.3),
    )
    gateway.start()
    client = Client(plane, gateway)

    def the_live_one_answers() -> bool:
        return client.ask().headers.get("taut-model-version") == "delay@2"

    until(the_live_one_answers, "the live version stays away")
    stopped = workers(gateway)  # one of each version; which is which is not told
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)
    until(lambda: all(map(stands_still, stopped)), "they go on")

    answer = client.ask(deadline_ms=20_000)

    assert answer.status_code == 503, answer.text  # both hung
    assert "did not answer for 0.3 s" in answer.json()["error"]["message"]
    until(the_live_one_answers, "the workers were not replaced")
    client.close()


def test_an_endpoint_without_a_worker_is_not_ready_and_says_so(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    gateway.start()
    client = Client(plane, gateway)
    assert client.ready()
    assert gateway.process is not None
    (zygote,) = children(gateway.process.pid)
    (worker,) = children(zygote)
    os.kill(zygote, signal.SIGSTOP)  # so that none can be forked
    os.kill(worker, signal.SIGKILL)

    until(lambda: not client.ready(), "ready without a worker")
    assert client.ask(deadline_ms=200).status_code == 504
    os.kill(zygote, signal.SIGCONT)
    until(client.ready, "not ready again")
    assert client.ask().status_code == 200
    client.close()


def test_a_dead_zygote_is_started_again_when_a_worker_is_wanted(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    gateway.start()
    client = Client(plane, gateway)
    assert gateway.process is not None
    (zygote,) = children(gateway.process.pid)
    (worker,) = children(zygote)
    os.kill(zygote, signal.SIGKILL)

    assert client.ask().status_code == 200  # the worker lives on
    os.kill(worker, signal.SIGKILL)
    until(lambda: client.ask(deadline_ms=300).status_code == 200, "no worker came")
    client.close()


def test_a_spare_takes_the_place_of_a_worker_that_ends(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker", spares=1))
    gateway.start()
    client = Client(plane, gateway)
    assert gateway.process is not None
    (zygote,) = children(gateway.process.pid)
    with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:

        def whole(killed: int) -> bool:
            beats = [state.beat for state in publisher.gateways() if state.beat is not None]
            readings = [decode_reading(beat.meters) for beat in beats]
            lanes = [lane for reading in readings if reading is not None for lane in reading.lanes]
            return [(lane.workers, lane.spares, lane.lost) for lane in lanes] == [(1, 1, killed)]

        def kill_the_oldest() -> None:
            old = next(pid for pid in children(zygote) if _runs(pid))
            os.kill(zygote, signal.SIGSTOP)  # so that none can be forked: who answers now was there before
            os.kill(old, signal.SIGKILL)
            until(lambda: not _runs(old), "it lives on")

        for turn in range(2):  # the one that works, and the one that took its place
            until(functools.partial(whole, turn), "the spare was not replaced")
            kill_the_oldest()
            assert client.ask(deadline_ms=20_000).status_code == 200
            assert client.ready()
            os.kill(zygote, signal.SIGCONT)
    client.close()


def test_workers_of_what_is_served_no_more_are_let_go(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(
        plane.endpoint(name="a", runtime="worker"), plane.endpoint(name="b", runtime="worker", workers=2)
    )
    gateway.start()
    assert len(workers(gateway)) == 3
    with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:
        until(lambda: bool(publisher.gateways()), "the gateway did not connect")
        published = publisher.publish(plane.sign(plane.snapshot(plane.endpoint(name="a", runtime="worker"))))
        publisher.wait(published.epoch, timeout_s=10)
        until(lambda: len(workers(gateway)) == 1, "workers of b live on")
        client = Client(plane, gateway)
        assert client.ask("a").status_code == 200
        client.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_gateway_however_it_ends(
    plane: DataPlane, gateway: GatewayProcess, how: signal.Signals
) -> None:
    plane.issue(plane.endpoint(runtime="worker", workers=2))
    gateway.start()
    assert gateway.process is not None
    below = family(gateway.process.pid)
    assert len(below) == 3
    os.kill(below[-1], signal.SIGSTOP)  # a hanging one ends too

    gateway.kill(how)

    until(
        lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in below), "left behind"
    )


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_log_holds_every_answer_of_workers_too(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    gateway.start()
    client = Client(plane, gateway)
    asked = [client.ask().json()["request_id"] for _ in range(20)]
    client.close()
    gateway.kill(signal.SIGTERM)

    found = {record.request_id for record in PredictionReader(plane.home / "log" / "predictions").records()}
    assert set(asked) == found


def test_who_hangs_up_while_he_waits_costs_no_worker(plane: DataPlane, gateway: GatewayProcess) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    gateway.start()
    (worker,) = workers(gateway)
    os.kill(worker, signal.SIGSTOP)
    head = f"POST /v1/predict/delay HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {plane.token()}\r\n"
    body = msgspec.json.encode(ROW)
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    patient, hasty = (socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(2))
    with patient:
        until(lambda: stands_still(worker), "it goes on")
        first, second = Sent(patient), Sent(hasty)
        patient.sendall(request)
        until(lambda: first.was_read, "not read")  # the worker has it now
        hasty.sendall(request)
        until(lambda: second.was_read, "not read")
        hasty.close()
        until(lambda: second.was_closed, "the gateway keeps it")
        os.kill(worker, signal.SIGCONT)
        assert patient.recv(4096).startswith(b"HTTP/1.1 200")
    client = Client(plane, gateway)
    assert client.ask().status_code == 200
    client.close()
    gateway.kill(signal.SIGTERM)

    assert len(list(PredictionReader(plane.home / "log" / "predictions").records())) == 2


def test_a_request_that_wants_more_memory_than_its_worker_may_have_fails_alone(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    served = plane.served(greedy_model(3), matrix_signature(3))
    endpoint = type(plane.endpoint())(name="delay", live=served, runtime="worker")
    plane.issue(endpoint, settings=GatewaySettings(worker_memory_bytes=512 * 2**20))
    gateway.start()
    client = Client(plane, gateway)
    fine = {"instances": [{"x0": 1000.0, "x1": 0.0, "x2": 0.0}]}
    greedy = {"instances": [{"x0": 4e8, "x1": 0.0, "x2": 0.0}]}  # 1.6 GB

    assert client.ask(body=fine).status_code == 200
    for _ in range(3):
        refused = client.ask(body=greedy)
        assert refused.status_code == 503, refused.text
        until(lambda: client.ask(body=fine).status_code == 200, "no worker for what is fine")
    client.close()
