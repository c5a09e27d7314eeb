"""The result cache, stand-ins, breakers and hedging of a real gateway process with real workers, over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from installation import Installation

from processes import workers
from taut.serving.predictions import PredictionReader
from taut.serving.snapshot import (
    CacheConfig,
    DefaultAnswer,
    EndpointConfig,
    GatewaySettings,
    OtherModel,
    Publisher,
    SnapshotStore,
    TrustFile,
    open_snapshot,
)
from taut.testing.serving import DataPlane, GatewayProcess, matrix_model, matrix_signature, slow_model

ROW = {"instances": [{"x0": 0.5, "x1": 0.25, "x2": -0.25}]}
DEFAULT = DefaultAnswer(probabilities=((0, 0.75), (1, 0.25)))


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[GatewayProcess]:
    with GatewayProcess(plane.home) as gateway:
        yield gateway


def until(holds: Callable[[], bool], otherwise: str, *, timeout_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.01)


class Client:
    def __init__(self, gateway: GatewayProcess, bearer: str) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.port}", headers={"authorization": f"Bearer {bearer}"}, timeout=60.0
        )  # fmt: skip

    def ask(self, body: Any = ROW, *, deadline_ms: int = 10_000) -> httpx.Response:
        headers = {"taut-deadline-ms": str(deadline_ms)}
        return self._http.post("/v1/predict/delay", json=body, headers=headers)

    def ready(self) -> Any:
        return self._http.get("/v2/models/delay/ready").json()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


def test_answers_are_kept_by_rights_and_version_and_every_one_is_recorded(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    def config(number: int) -> EndpointConfig:
        model = matrix_model(3, bias=float(number))
        live = plane.served(model, matrix_signature(3), version=f"delay@{number}")
        return EndpointConfig(name="delay", live=live, cache=CacheConfig(ttl_s=600.0))

    plane.issue(config(1))
    gateway.start()
    with (
        Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher,
        Client(gateway, plane.token()) as ana,
        Client(gateway, plane.token("bob")) as bob,
        Client(gateway, plane.token("cy", roles=("auditor", "predictor"))) as cy,
    ):
        until(lambda: len(publisher.gateways()) == 1, "no gateway")
        answers = [one.ask() for one in (ana, ana, bob, cy, cy)]
        for number in (1, 2):  # the same version under a new epoch, then another
            epoch = publisher.publish(plane.sign(plane.snapshot(config(number)))).epoch
            publisher.wait(epoch, timeout_s=10.0)
            answers += [ana.ask(), ana.ask()]

    kept = [one.headers["taut-cache"] for one in answers]
    assert kept == ["miss", "hit", "hit", "miss", "hit", "hit", "hit", "miss", "hit"]
    assert len({one.json()["predictions"][0]["probability"] for one in answers[:7]}) == 1
    assert answers[7].json()["predictions"] != answers[0].json()["predictions"]
    gateway.kill(signal.SIGTERM)
    logged = {
        one.request_id: (one.principal, one.age_us > 0)
        for one in PredictionReader(plane.home / "log" / "predictions").records()
    }
    for one, who in zip(answers, ("ana", "ana", "bob", "cy", "cy", *["ana"] * 4), strict=True):
        assert logged[one.headers["taut-request-id"]] == (who, one.headers["taut-cache"] == "hit")


def test_equal_requests_of_many_connections_are_computed_once(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    slow = plane.served(slow_model(3, layers=64), matrix_signature(3), version="delay@1")
    config = EndpointConfig(name="delay", live=slow, runtime="worker", cache=CacheConfig(ttl_s=600.0))
    plane.issue(config)
    gateway.start()
    bearer, begin = plane.token(), threading.Barrier(8)

    def run(_: int) -> str:
        with Client(gateway, bearer) as client:
            client.ready()
            begin.wait(timeout=90)
            return client.ask().headers["taut-cache"]

    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(run, range(8)))

    assert sorted(kept) == ["hit"] * 7 + ["miss"]


@pytest.mark.crash
def test_while_workers_are_killed_every_request_is_answered_and_says_by_whom(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    simple = plane.served(matrix_model(1), matrix_signature(1), version="simple@1")
    live = plane.served(matrix_model(3), matrix_signature(3), version="delay@1")
    steps = (OtherModel(model=simple), DEFAULT)
    plane.issue(EndpointConfig(name="delay", live=live, runtime="worker", fallbacks=steps))
    gateway.start()
    stop, stood_in = threading.Event(), threading.Event()

    def run(_: int) -> list[tuple[int, str, str]]:
        found = []
        with Client(gateway, plane.token()) as client:
            while not stop.is_set():
                answer = client.ask()
                model = answer.json().get("model_version", "")
                if model == "simple@1":
                    stood_in.set()
                found.append((answer.status_code, model, answer.headers.get("taut-fallback", "")))
        return found

    with ThreadPoolExecutor(3) as pool, Client(gateway, plane.token()) as client:
        whole = client.ask()  # killed too early, the live version would not have answered at all
        asked = [pool.submit(run, number) for number in range(3)]
        for killed in range(100):  # at least five times, and until one of them hit a request
            if killed >= 5 and stood_in.is_set():
                break
            until(lambda: bool(workers(gateway)), "no worker")
            for worker in workers(gateway):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            time.sleep(0.3)
        until(lambda: client.ask().json()["model_version"] == "delay@1", "the live version stays away")
        stop.set()
        found = [one for each in asked for one in each.result()]

    assert whole.json()["model_version"] == "delay@1"
    assert {status for status, _, _ in found} == {200}
    answered = {(model, said) for _, model, said in found}
    assert ("simple@1", "simple@1") in answered
    assert answered <= {("delay@1", ""), ("simple@1", "simple@1")}


def test_a_version_that_fails_is_left_alone_and_its_endpoint_says_so(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    nan = plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3), version="delay@2")
    plane.issue(EndpointConfig(name="delay", live=nan, runtime="worker", fallbacks=(DEFAULT,)))
    gateway.start()

    with Client(gateway, plane.token()) as client:
        answers = [client.ask() for _ in range(40)]
        found = client.ready()

    assert {(one.status_code, one.headers["taut-fallback"]) for one in answers} == {(200, "default")}
    assert (found["ready"], found["breakers"][0]["of"]) == (True, "delay@2")
    assert found["breakers"][0]["state"] in ("open", "half-open")
    assert "delay@2 failed too often of late" in found["degraded"][0]


def test_a_worker_that_stands_still_is_hedged_by_its_sibling(
    plane: DataPlane, gateway: GatewayProcess
) -> None:
    live = plane.served(matrix_model(3), matrix_signature(3), version="delay@1")
    config = EndpointConfig(name="delay", live=live, runtime="worker", workers=2, hedge_after_ms=50.0)
    plane.issue(config, settings=GatewaySettings(worker_hang_s=600.0))
    gateway.start()
    until(lambda: len(workers(gateway)) == 2, "not two workers")

    with Client(gateway, plane.token()) as client:
        for _ in range(20):
            client.ask()
        stopped = workers(gateway)[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            answers = [client.ask() for _ in range(20)]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGCONT)

    # without a second attempt one of them would wait until its deadline: nobody ends the worker in this test
    assert {one.status_code for one in answers} == {200}


def test_a_project_declares_its_cache_and_its_stand_ins(released: Installation) -> None:
    text = (released.folder / "project.py").read_text()
    plain = "slo=taut.SLO(latency_p95_ms=20))"
    assert plain in text
    declared = (
        'slo=taut.SLO(latency_p95_ms=20), cache=taut.Cache(ttl="10m"),\n    fallback=[taut.previous_version(), '
        "taut.simpler_model(plain), taut.default_answer(probabilities={True: 0.1, False: 0.9})])"
    )
    other = 'plain = taut.Endpoint("plain", model=train)\nlate = taut.Endpoint('
    released.write("project.py", text.replace(plain, declared).replace("late = taut.Endpoint(", other))
    released("apply")
    with released.up() as up:
        bearer = up.token()
        answers = [up.ask(bearer) for _ in range(2)]
        assert released("release", "start", "plain", "1")["state"] == "live"
        kinds = _stand_ins(released)
        ready = httpx.get(
            f"{up.data}/v2/models/late/ready", headers={"authorization": f"Bearer {bearer}"}, timeout=60.0
        ).json()
        why = released("why", answers[1].headers["taut-request-id"])

    assert [one.status_code for one in answers] == [200, 200]
    assert [one.headers["taut-cache"] for one in answers] == ["miss", "hit"]
    assert answers[0].json()["predictions"] == answers[1].json()["predictions"]
    assert kinds == [OtherModel, DefaultAnswer]  # there is no version before the first
    assert ready["degraded"] == []
    assert why["request"]["version"] == "late@1"
    assert why["tree"]["facts"]["age_us"] > 0


def _stand_ins(installation: Installation) -> list[type]:
    folder = installation.home / "serving"
    trust = TrustFile(folder / "trust.json")
    data = SnapshotStore(folder, trust).newest()
    assert data is not None
    endpoints = {one.name: one for one in open_snapshot(data, trust.read()).endpoints}
    return [type(one) for one in endpoints["late"].fallbacks]
