"""What INTERFACE promises of the two planes of a running platform, asked by a real client over HTTP and the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from installation import ORDER, Installation, Up, alive, free_ports, until

from taut.entrypoints.operations import operation_table

pytestmark = pytest.mark.xdist_group("interface-planes")

COLUMNS = [("warehouse", "BYTES"), ("carrier", "BYTES"), ("items", "INT64"), ("distance_km", "FP64")]
TENSORS = [
    {"name": name, "shape": [2], "datatype": datatype, "data": [ORDER[name]] * 2}
    for name, datatype in COLUMNS
]


@pytest.fixture(scope="module")
def up(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One running platform for this file."""
    with released_template.copy_to(tmp_path_factory.mktemp("planes") / "shop").up() as running:
        yield running


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    return str(up.installation("token", "create", "--principal", "app", "--role", "predictor")["token"])


@pytest.fixture
def data(up: Up, token: str) -> Iterator[httpx.Client]:
    """A client of the data plane with a predictor's token."""
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=up.data, headers=headers, timeout=60.0) as client:
        yield client


@pytest.fixture
def control(up: Up) -> Iterator[httpx.Client]:
    """A client of the control plane with an administrator's token."""
    bearer = up.installation("token", "create", "--principal", "boss", "--role", "admin")["token"]
    headers = {"authorization": f"Bearer {bearer}"}
    with httpx.Client(base_url=up.control, headers=headers, timeout=60.0) as client:
        yield client


def _error(answer: httpx.Response, status: int) -> str:
    """Return the code of an error in the shape that is promised."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "request_id"}
    assert document["error"]["message"]
    assert "Traceback" not in answer.text
    return str(document["error"]["code"])


def test_the_server_and_its_health_need_no_identity(up: Up) -> None:
    server = httpx.get(f"{up.data}/v2", timeout=60.0).json()

    assert {"name", "version", "extensions"} <= set(server)
    assert httpx.get(f"{up.data}/v2/health/live", timeout=60.0).status_code == 200
    assert httpx.get(f"{up.data}/v2/health/ready", timeout=60.0).status_code == 200
    assert httpx.get(f"{up.control}/livez", timeout=60.0).json() == {"ok": True}
    assert httpx.get(f"{up.control}/readyz", timeout=60.0).json() == {"ok": True}


@pytest.mark.parametrize("path", ["/v2/models/late", "/v2/models/late/versions/1"])
def test_metadata_lists_one_tensor_for_each_request_column(data: httpx.Client, path: str) -> None:
    metadata = data.get(path).json()

    assert metadata["name"] == "late"
    assert metadata["versions"] == ["1"]
    inputs = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]]
    assert inputs[: len(COLUMNS)] == [(name, datatype, [-1]) for name, datatype in COLUMNS]
    optional = metadata["inputs"][len(COLUMNS) :]  # the question's own time, which a replay gives
    assert [(tensor["name"], tensor["parameters"]["nullable"]) for tensor in optional] == [
        ("placed_at", True)
    ]
    outputs = {tensor["name"]: tensor["shape"] for tensor in metadata["outputs"]}
    assert outputs == {"label": [-1], "probability": [-1, 2]}
    assert data.get(f"{path}/ready").status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/late/infer", "/v2/models/late/versions/1/infer"])
def test_inference_by_the_open_protocol_agrees_with_predictions_by_row(data: httpx.Client, path: str) -> None:
    answer = data.post(path, json={"id": "mine", "inputs": TENSORS})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    by_row = data.post("/v1/predict/late", json={"instances": [ORDER]}).json()["predictions"][0]

    assert (document["model_name"], document["model_version"], document["id"]) == ("late", "1", "mine")
    outputs = {tensor["name"]: tensor for tensor in document["outputs"]}
    assert outputs["label"]["shape"] == [2]
    assert outputs["probability"]["shape"] == [2, 2]
    assert outputs["probability"]["data"][1] == pytest.approx(by_row["probability"])


def test_predictions_have_the_promised_form_and_headers(data: httpx.Client, up: Up) -> None:
    answer = data.post("/v1/predict/late", json={"instances": [ORDER, ORDER]})
    document = answer.json()

    assert set(document) == {"predictions", "request_id", "model_version", "release"}
    assert [set(item) for item in document["predictions"]] == [{"label", "probability"}] * 2
    assert answer.headers["taut-request-id"] == document["request_id"]
    assert answer.headers["taut-model-version"] == document["model_version"] == "late@1"
    assert answer.headers["taut-release"] == document["release"]
    assert int(answer.headers["taut-policy-epoch"]) > 0
    assert int(answer.headers["taut-guard-us"]) >= 0
    assert answer.headers["taut-cache"] in ("hit", "miss", "off")
    assert "taut-fallback" not in answer.headers


def test_request_headers_are_taken_and_nonsense_in_them_is_refused(data: httpx.Client) -> None:
    body = {"instances": [ORDER]}
    taken = {
        "taut-deadline-ms": "5000", "taut-priority": "9", "taut-subject": "person-7",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }  # fmt: skip
    assert data.post("/v1/predict/late", json=body, headers=taken).status_code == 200
    for name, value in (
        ("taut-deadline-ms", "soon"), ("taut-deadline-ms", "0"), ("taut-priority", "10"), ("taut-priority", "high"),
    ):  # fmt: skip
        assert _error(data.post("/v1/predict/late", json=body, headers={name: value}), 400) == "malformed"


def test_errors_of_the_data_plane_have_their_status_and_one_shape(up: Up, data: httpx.Client) -> None:
    path, good = "/v1/predict/late", {"instances": [ORDER]}
    bare = httpx.Client(base_url=up.data, timeout=60.0)
    with bare:
        assert _error(bare.post(path, json=good), 401) == "unauthenticated"
    auditor = up.installation("token", "create", "--principal", "aud", "--role", "auditor")["token"]
    denied = httpx.post(
        f"{up.data}{path}", json=good, headers={"authorization": f"Bearer {auditor}"}, timeout=60.0
    )
    assert _error(denied, 403) == "denied"
    assert _error(data.post(path, content=b"{no json"), 400) == "malformed"
    assert _error(data.post("/v1/predict/lat", json=good), 404) == "not_found"
    assert _error(data.get("/v2/models/late/versions/7"), 404) == "not_found"
    assert _error(data.get(path), 405) == "method_not_allowed"
    assert _error(data.post(path, content=b" " * (9 * 2**20)), 413) == "too_large"
    wrong = _error(data.post(path, json={"instances": [{**ORDER, "items": "three"}]}), 422)
    assert wrong == "invalid_input"
    unknown = data.post(path, json={"instances": [{**ORDER, "wharehouse": "north"}]})
    assert _error(unknown, 422) == "invalid_input"
    assert "warehouse" in unknown.json()["error"]["message"]


def test_the_control_plane_is_described_and_everything_in_it_needs_an_identity(
    up: Up, control: httpx.Client
) -> None:
    paths = control.get("/openapi.json").json()["paths"]

    assert {operation.path for operation in operation_table()} <= set(paths)
    with httpx.Client(base_url=up.control, timeout=60.0) as bare:
        for operation in operation_table():
            if not operation.open:  # where what is sent says who one is
                assert _error(bare.post(operation.path, json={}), 401) == "unauthenticated", operation.name
        assert "text/html" in bare.get("/").headers["content-type"]
        assert "# TYPE" in bare.get("/metrics").text


def test_the_api_gives_the_documents_of_the_command_line(up: Up, control: httpx.Client) -> None:
    for path, words in (
        ("/api/v1/data/list", ("data", "list")),
        ("/api/v1/release/status?endpoint=late", ("release", "status", "late")),
        ("/api/v1/model/show?version=late@1", ("model", "show", "late@1")),
    ):
        assert control.get(path).json() == up.installation(*words)
    assert _error(control.get("/api/v1/data/list?limt=3"), 400) == "invalid_input"
    assert _error(control.get("/api/v1/nothing/here"), 404) == "not_found"
    assert _error(control.get("/api/v1/model/show?version=late@9"), 404) == "not_found"


def test_the_command_line_speaks_to_what_runs_and_to_a_url_with_a_token(up: Up, token: str) -> None:
    here = up.installation
    admin = here("token", "create", "--principal", "boss", "--role", "admin")["token"]
    asked = here("predict", "late", "--data", json.dumps(ORDER))

    assert here("data", "list", "--url", up.control, "--token", admin) == here("data", "list")
    assert here("status")["data_plane"] == up.data
    for url in (up.data, up.control):
        bearer = token if url == up.data else admin
        there = here("predict", "late", "--data", json.dumps(ORDER), "--url", url, "--token", bearer)
        assert there["predictions"] == asked["predictions"], url
    refused = here.refused("data", "list", "--url", up.control, exit_code=4, code="unauthenticated")
    assert "Bearer" in refused or "token" in refused
    assert here("why", asked["request_id"])["request"]["version"] == "late@1"


def test_a_second_platform_is_refused_on_a_taken_port_and_in_a_taken_home(
    up: Up, released: Installation
) -> None:
    taken = released.refused("up", "--port", str(up.port), exit_code=5, code="conflict")
    assert str(up.port) in taken
    assert "--port" in taken
    home = up.installation.refused("up", "--port", "0", exit_code=5, code="conflict")
    assert "--home" in home
    control = free_ports() + 1
    with socket.create_server(("127.0.0.1", control)):
        beside = released.process("up", "--port", str(control - 1), within_s=90)
    assert beside.code == 5
    assert "control" in beside.error[1]
    assert str(control) in beside.error[1]


def test_a_port_is_loopback_only(up: Up) -> None:
    own = _own_address()
    if own is None:
        pytest.skip("this machine has no other address than loopback")
    for port in (up.port, up.port + 1):
        with pytest.raises(OSError), socket.create_connection((own, port), timeout=2):
            pass


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: the kernel only chooses an address
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


def test_a_token_and_an_api_key_both_work_while_control_is_dead(up: Up, token: str) -> None:
    key = up.installation("key", "create", "--principal", "app", "--role", "predictor")["key"]
    short = up.installation("token", "create", "--principal", "app", "--role", "predictor", "--ttl", "4s")
    until(lambda: up.ask(key).status_code == 200)
    pid = up.pid("control")
    os.kill(up.pid("supervisor"), signal.SIGSTOP)  # it would start another one
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: _refuses(up.control))
        answers: dict[str, Any] = {bearer: up.ask(bearer) for bearer in (token, key)}
        assert {bearer: answer.status_code for bearer, answer in answers.items()} == {token: 200, key: 200}
        until(lambda: up.ask(short["token"]).status_code == 401)
        assert _error(up.ask(short["token"]), 401) == "unauthenticated"
        assert up.ask("forged." + token[7:]).status_code == 401
        told = up.installation.told("data", "list")
        assert told.code in (5, 7), told
    finally:
        os.kill(up.pid("supervisor"), signal.SIGCONT)
    until(lambda: up.state()["children"][0]["state"] == "ready" and up.pid("control") != pid, within_s=90)
    assert alive(up.pid("control"))
    assert up.installation("why", answers[key].json()["request_id"])["tree"]


def _refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=1)
    except httpx.TransportError:
        return True
    time.sleep(0.05)
    return False
