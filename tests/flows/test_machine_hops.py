"""Two machines that answer for one another: real gateways with a slow model in a worker each, asked at the first one."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from installation import logged_ids, until

from processes import workers
from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.bootstrap.joined import Joined, write_joined
from taut.serving.snapshot import Machine
from taut.testing.serving import DataPlane, GatewayProcess, matrix_signature, row_model

pytestmark = pytest.mark.xdist_group("machine-hops")

ROW = {"instances": [{"x0": 0.5, "x1": 0.25, "x2": -0.25}]}
PATH = "/v1/predict/delay"


class Pair:
    """Gateways of two machines with one snapshot; control is not there, and not needed."""

    def __init__(self, folder: Path) -> None:
        self.plane = DataPlane(folder / "first", FileKeys(folder / "keys", random=SystemRandom()))
        self.first = GatewayProcess(self.plane.home)
        self.there = folder / "second"
        self.second = GatewayProcess(self.there, name="gateway-0@m2")
        live = self.plane.served(row_model(3, layers=16), matrix_signature(3))
        endpoint = msgspec.structs.replace(
            self.plane.endpoint(runtime="worker", latency_ms=5000.0), live=live
        )
        self.plane.issue(
            endpoint, url=f"http://127.0.0.1:{self.first.port}", gateways=2,
            machines=(Machine(name="m2", url=f"http://127.0.0.1:{self.second.port}", gateways=1),),
        )  # fmt: skip
        shutil.copytree(self.plane.home, self.there)
        write_joined(self.there, Joined(control="http://127.0.0.1:9", machine="m2", instance="0" * 32))
        self.headers = {"authorization": f"Bearer {self.plane.token()}"}

    def ask(self, at: GatewayProcess | None = None, **more: str) -> httpx.Response:
        url = f"http://127.0.0.1:{(at or self.first).port}{PATH}"
        return httpx.post(url, json=ROW, headers={**self.headers, **more}, timeout=60)

    @contextmanager
    def load(self, clients: int = 6) -> Iterator[list[httpx.Response]]:
        """Ask the first machine from so many connections until the block ends; yields the answers as they come."""
        stop, answers = threading.Event(), list[httpx.Response]()

        def run(_: int) -> None:
            with httpx.Client(headers=self.headers, timeout=60) as client:
                while not stop.is_set():
                    answers.append(client.post(f"http://127.0.0.1:{self.first.port}{PATH}", json=ROW))

        with ThreadPoolExecutor(clients) as pool:
            asked = [pool.submit(run, number) for number in range(clients)]
            try:
                yield answers
            finally:
                stop.set()
        for one in asked:
            one.result()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("pair"))
    with pair.first, pair.second:
        pair.first.start()
        pair.second.start()
        yield pair


def hops(answers: list[httpx.Response]) -> list[httpx.Response]:
    return [answer for answer in answers if answer.headers.get("taut-hop") == "m2"]


def test_what_would_wait_here_is_answered_there_and_recorded_once(pair: Pair) -> None:
    alone = pair.ask()
    assert "taut-hop" not in alone.headers  # nobody waits: it stays

    with pair.load() as answers:
        until(lambda: len(hops(answers)) > 20)

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.text.split('"request_id"')[0] for answer in [*answers, alone]} == {
        alone.text.split('"request_id"')[0]
    }
    here, there = logged_ids(pair.plane.home), logged_ids(pair.there)
    assert not here & there
    assert {answer.json()["request_id"] for answer in hops(answers)} <= there
    assert {answer.headers["taut-request-id"] for answer in answers} <= here | there


def test_a_hop_goes_no_further_and_tells_what_there_is_to_do(pair: Pair) -> None:
    answer = pair.ask(**{"taut-hop": "1"})

    assert "taut-hop" not in answer.headers
    assert len(answer.headers["taut-load"].split()) == 5
    assert "taut-load" not in pair.ask().headers


def test_a_stranger_gets_no_further_than_the_first_machine(pair: Pair) -> None:
    with pair.load() as answers:
        until(lambda: len(hops(answers)) > 5)
        for _ in range(20):
            refused = pair.ask(authorization="Bearer nobody")
            assert (refused.status_code, "taut-hop" in refused.headers) == (401, False)


def test_a_machine_that_stands_still_is_left_alone_and_its_requests_are_answered_here(pair: Pair) -> None:
    (worker,) = workers(pair.second)
    with pair.load() as answers:
        until(lambda: len(hops(answers)) > 5)
        os.kill(worker, signal.SIGSTOP)
        try:
            count = len(answers)
            until(lambda: len(answers) > count + 100)
        finally:
            os.kill(worker, signal.SIGCONT)
        count = len(hops(answers))
        until(lambda: len(hops(answers)) > count + 5)  # tried again, and found well

    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.crash
def test_kill_9_of_the_other_machine_fails_no_request(pair: Pair) -> None:
    with pair.load() as answers:
        until(lambda: len(hops(answers)) > 5)
        pair.second.kill()
        count = len(answers)
        until(lambda: len(answers) > count + 100)
        pair.second.start()
        count = len(hops(answers))
        until(lambda: len(hops(answers)) > count + 5)

    assert {answer.status_code for answer in answers} == {200}
