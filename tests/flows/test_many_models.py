"""Many endpoints on a gateway with memory for few of their models: loaded on demand, evicted, verified at each load."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.snapshot import EndpointConfig, PreviousVersion
from taut.testing.serving import DataPlane, GatewayProcess, matrix_model, matrix_signature

MODELS = 24
ROW = {"instances": [{"x0": 0.5, "x1": 0.25, "x2": -0.25}]}


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    return DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))


@pytest.fixture
def client(plane: DataPlane, gateway: GatewayProcess) -> Iterator[Client]:
    with Client(plane, gateway) as made:
        yield made


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[GatewayProcess]:
    """A gateway with memory for a few of the models, which take more than their artifact of 1 MiB."""
    os.environ["TAUT_MODEL_MEMORY"] = "14MiB"
    try:
        with GatewayProcess(plane.home) as gateway:
            yield gateway
    finally:
        del os.environ["TAUT_MODEL_MEMORY"]


class Client:
    def __init__(self, plane: DataPlane, gateway: GatewayProcess, **token: Any) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.port}",
            headers={"authorization": f"Bearer {plane.token(**token)}"},
            timeout=60,
        )

    def ask(self, endpoint: str) -> httpx.Response:
        return self._http.post(f"/v1/predict/{endpoint}", json=ROW)

    def ready(self, endpoint: str) -> tuple[int, dict[str, Any]]:
        said = self._http.get(f"/v2/models/{endpoint}/ready")
        return said.status_code, said.json()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, path: str, document: Any = None) -> httpx.Response:
        return self._http.post(path, json={} if document is None else document)


def endpoint(plane: DataPlane, number: int, **more: Any) -> EndpointConfig:
    """Return an endpoint whose answer tells which it is."""
    live = plane.served(
        matrix_model(3, bias=number / 10, ballast=512),
        matrix_signature(3),
        version=f"model{number}@{number + 1}",
    )
    return EndpointConfig(name=f"e{number}", live=live, **more)


def expected(number: int) -> float:
    return 1 / (1 + math.exp(-(0.5 + number / 10)))


def right(answer: httpx.Response, number: int) -> bool:
    if answer.status_code != 200:
        return False
    return abs(answer.json()["predictions"][0]["probability"] - expected(number)) < 1e-5


def until(holds: Callable[[], bool], otherwise: str, *, timeout_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.02)


def test_many_models_answer_from_memory_for_few_of_them(
    plane: DataPlane, gateway: GatewayProcess, client: Client
) -> None:
    plane.issue(*(endpoint(plane, number) for number in range(MODELS)))
    gateway.start()
    states = [client.ready(f"e{number}") for number in range(MODELS)]
    assert {status for status, _ in states} == {200}  # on demand is ready
    loaded = sum(said["model"] == "loaded" for _, said in states)
    assert 2 <= loaded <= 13
    assert sum(said["model"] == "on demand" for _, said in states) == MODELS - loaded

    def sweep(start: int) -> list[bool]:
        order = [(start + step) % MODELS for step in range(2 * MODELS)]
        with Client(plane, gateway) as asking:
            return [right(asking.ask(f"e{number}"), number) for number in order]

    with ThreadPoolExecutor(4) as pool:
        found = [one for part in pool.map(sweep, (0, 0, 7, 13)) for one in part]

    assert found == [True] * (4 * 2 * MODELS)
    states = [client.ready(f"e{number}") for number in range(MODELS)]
    assert sum(said["model"] == "loaded" for _, said in states) <= 13


def test_an_artifact_that_was_changed_is_found_when_it_is_loaded_again(
    plane: DataPlane, gateway: GatewayProcess, client: Client
) -> None:
    changed, guarded = endpoint(plane, 0, keep_loaded=False), endpoint(plane, 1, keep_loaded=False)
    before = plane.served(matrix_model(3, bias=0.9), matrix_signature(3), version="model1@1")
    with_previous = EndpointConfig(
        name="e1", live=guarded.live, keep_loaded=False, fallbacks=(PreviousVersion(model=before),)
    )
    plane.issue(changed, with_previous, endpoint(plane, 2))
    gateway.start()
    for one in (changed, guarded):
        (plane.home / one.live.path).write_bytes(matrix_model(3, bias=99.0))

    refused, stood_in, untouched = client.ask("e0"), client.ask("e1"), client.ask("e2")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "signed was sha256:" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert (stood_in.status_code, stood_in.headers["taut-fallback"]) == (200, "model1@1")
    assert right(stood_in, 9)
    assert right(untouched, 2)
    for name in ("e0", "e1"):
        status, said = client.ready(name)
        assert status == 503
        assert any("has digest" in reason for reason in said["reasons"])
    assert client.ready("e2")[0] == 200

    (plane.home / changed.live.path).write_bytes(matrix_model(3, bias=0.0, ballast=512))
    until(lambda: right(client.ask("e0"), 0), "a restored artifact was not loaded")
    assert client.ready("e0")[0] == 200


def test_tritons_client_sees_what_is_in_memory_and_an_operator_moves_it(
    plane: DataPlane, gateway: GatewayProcess, client: Client
) -> None:
    plane.issue(
        endpoint(plane, 0, keep_loaded=False), endpoint(plane, 1, keep_loaded=True), endpoint(plane, 2)
    )
    gateway.start()
    triton = InferenceServerClient(f"127.0.0.1:{gateway.port}")
    operator = {"authorization": f"Bearer {plane.token('olga', roles=('operator',))}"}

    def states() -> dict[str, str]:
        index = triton.get_model_repository_index(headers=operator)
        assert [one["version"] for one in index] == ["1", "2", "3"]
        return {one["name"]: one["state"] for one in index}

    assert states() == {"e0": "UNAVAILABLE", "e1": "READY", "e2": "READY"}
    triton.load_model("e0", headers=operator)
    triton.unload_model("e2", headers=operator)
    assert states() == {"e0": "READY", "e1": "READY", "e2": "UNAVAILABLE"}
    assert right(client.ask("e2"), 2)  # unloaded is on demand, not out of service
    with pytest.raises(InferenceServerException) as kept:
        triton.unload_model("e1", headers=operator)
    with pytest.raises(InferenceServerException) as configured:
        triton.load_model("e0", headers=operator, config="{}")
    assert "keep_loaded" in str(kept.value.message())
    assert "leave out parameters" in str(configured.value.message())
    triton.close()

    index = client.post("/v2/repository/index", {"ready": True})
    assert {one["name"] for one in index.json()} == {"e0", "e1", "e2"}
    refused = client.post("/v2/repository/models/e0/unload")
    assert (refused.status_code, "role operator" in refused.text) == (403, True)
    stranger = httpx.post(f"http://127.0.0.1:{gateway.port}/v2/repository/index", timeout=60.0)
    assert stranger.status_code == 401
    paths = ("models/e9/load", "models/e0/move", "models/e0", "", "index/e0")
    assert [client.post(f"/v2/repository/{path}").status_code for path in paths] == [404] * 5
    assert client.post("/v2/repository/index", [1]).status_code == 400
