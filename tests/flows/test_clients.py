"""Other people's clients against real processes: Triton's over HTTP and gRPC, plain grpc, curl."""

from __future__ import annotations

import gzip
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from test_gateway_process import INSTANCE, logged, wait_until
from tritonclient.utils import InferenceServerException

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.serving.predictions import PredictionReader
from taut.serving.rpc.messages import HEALTH, INFERENCE, Messages
from taut.serving.snapshot import EndpointConfig
from taut.testing.ports import free_ports
from taut.testing.serving import (
    DataPlane,
    GatewayProcess,
    columns_model,
    matrix_model,
    matrix_signature,
    with_fields,
)

pytestmark = pytest.mark.xdist_group("clients")

ROWS = np.array([[1.0, 0.5, -0.25], [3.0, 0.1, 2.0]], dtype=np.float32)


class Plane(NamedTuple):
    data: DataPlane
    gateway: GatewayProcess
    rpc_port: int
    rpc: subprocess.Popen[bytes]

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.data.token()}"}


@contextmanager
def rpc_process(home: Path, gateways_port: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the gRPC process on a free port."""
    port = free_ports()
    ready, told = os.pipe()
    command = [
        sys.executable, "-m", "taut.entrypoints.grpc_main", "--port", str(port), "--gateways-port", str(gateways_port),
        "--ready-fd", str(told),
    ]  # fmt: skip
    with (home / "grpc-0.log").open("ab") as log:
        process = subprocess.Popen(command, pass_fds=[told], stdout=log, stderr=log)
    os.close(told)
    try:
        readable, _, _ = select.select([ready], [], [], 30)
        assert readable, (home / "grpc-0.log").read_text()
        assert os.read(ready, 16) == b"ready\n", (home / "grpc-0.log").read_text()
        yield port, process
    finally:
        os.close(ready)
        if process.poll() is None:
            process.kill()
        process.wait()


def words(plane: DataPlane) -> EndpointConfig:
    """An endpoint with a column of text and one of numbers."""
    columns = (Column("carrier", DType.STRING), Column("distance", DType.FLOAT))
    signature = ModelSignature(
        request=columns,
        inputs=tuple(ModelInput(column=column) for column in columns),
        output="value",
        tensor="columns",
    )
    return EndpointConfig(
        name="words", live=plane.served(columns_model(["distance"], "carrier"), signature, version="words@1")
    )


def named(plane: DataPlane) -> EndpointConfig:
    """A classifier whose classes are text."""
    signature = with_fields(matrix_signature(3), classes=("früh", "spät"))
    return EndpointConfig(name="named", live=plane.served(matrix_model(3), signature, version="named@7"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    home = tmp_path_factory.mktemp("clients")
    data = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    data.issue(data.endpoint(), words(data), named(data))
    with GatewayProcess(home) as gateway:
        gateway.start()
        with rpc_process(home, gateway.port) as (port, process):
            yield Plane(data, gateway, port, process)


@pytest.fixture
def http(plane: Plane) -> Iterator[triton_http.InferenceServerClient]:
    with closing(triton_http.InferenceServerClient(f"127.0.0.1:{plane.gateway.port}")) as client:
        yield client


@pytest.fixture
def rpc(plane: Plane) -> Iterator[triton_grpc.InferenceServerClient]:
    with closing(triton_grpc.InferenceServerClient(f"127.0.0.1:{plane.rpc_port}")) as client:
        yield client


def record(plane: Plane, rows: list[dict[str, Any]]) -> None:
    """The last record of the log has these rows."""
    *_, last = PredictionReader(plane.data.home / "log" / "predictions").records()
    assert last.requests() == rows
    assert (last.status, last.principal) == (200, "ana")


AS_ROWS = [dict(zip(("x0", "x1", "x2"), map(float, row), strict=True)) for row in ROWS]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["raw in", "json in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["raw out", "json out"])
def test_tritons_http_client_is_answered_in_every_form(
    plane: Plane,
    http: triton_http.InferenceServerClient,
    binary_in: bool,
    binary_out: bool,
    compression: str | None,
) -> None:
    tensor = triton_http.InferInput("input", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary_in)
    outputs = [
        triton_http.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "probability")
    ]

    found = http.infer(
        "delay", [tensor], outputs=outputs, headers=plane.bearer, request_id="mine",
        request_compression_algorithm=compression, response_compression_algorithm=compression,
    )  # fmt: skip

    assert found.get_response()["id"] == "mine"
    assert found.as_numpy("label").tolist() == [1, 1]
    assert found.as_numpy("probability").sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    record(plane, AS_ROWS)


def test_tritons_http_client_reads_pages_and_refusals(
    plane: Plane, http: triton_http.InferenceServerClient
) -> None:
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("delay", headers=plane.bearer)
    assert not http.is_model_ready("delay", "9", headers=plane.bearer)
    assert http.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    metadata = http.get_model_metadata("words", headers=plane.bearer)
    assert [tensor["datatype"] for tensor in metadata["inputs"]] == ["BYTES", "FP64"]
    tensor = triton_http.InferInput("input", [1, 2], "FP32")
    tensor.set_data_from_numpy(ROWS[:1, :2])
    with pytest.raises(InferenceServerException) as caught:
        http.infer("delay", [tensor], headers=plane.bearer)
    assert caught.value.status() == "422"


@pytest.mark.parametrize("face", [triton_http, triton_grpc], ids=["http", "grpc"])
def test_text_goes_in_and_comes_out_over_both_faces(plane: Plane, face: Any) -> None:
    port = plane.gateway.port if face is triton_http else plane.rpc_port
    with closing(face.InferenceServerClient(f"127.0.0.1:{port}")) as client:
        carrier = face.InferInput("carrier", [2], "BYTES")
        carrier.set_data_from_numpy(np.array([b"AA", "Übersee".encode()], dtype=np.object_))
        distance = face.InferInput("distance", [2, 1], "INT32")
        distance.set_data_from_numpy(np.array([[10], [20]], dtype=np.int32))
        value = client.infer("words", [carrier, distance], headers=plane.bearer)
        record(plane, [{"carrier": "AA", "distance": 10.0}, {"carrier": "Übersee", "distance": 20.0}])
        tensor = face.InferInput("input", [2, 3], "FP32")
        tensor.set_data_from_numpy(ROWS)
        label = client.infer("named", [tensor], headers=plane.bearer)

    assert value.as_numpy("value").tolist() == [11.0, 20.0]
    assert [text.decode() for text in label.as_numpy("label")] == ["spät", "spät"]


def test_tritons_grpc_client_reads_everything_that_the_service_has(
    plane: Plane, rpc: triton_grpc.InferenceServerClient
) -> None:
    assert rpc.is_server_live()
    assert rpc.is_server_ready()
    assert rpc.is_model_ready("delay", headers=plane.bearer)
    assert rpc.is_model_ready("named", "7", headers=plane.bearer)
    server = rpc.get_server_metadata()
    assert (server.name, list(server.extensions)) == ("taut", ["binary_tensor_data"])
    model = rpc.get_model_metadata("named", headers=plane.bearer)
    assert (model.name, list(model.versions), model.platform) == ("named", ["7"], "onnx_onnxv1")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [
        ("label", "BYTES", [-1]), ("probability", "FP64", [-1, 2]),
    ]  # fmt: skip


def test_tritons_grpc_client_is_answered_as_its_http_client_is(
    plane: Plane, http: triton_http.InferenceServerClient, rpc: triton_grpc.InferenceServerClient
) -> None:
    found = []
    for face, client in ((triton_http, http), (triton_grpc, rpc)):
        tensor = face.InferInput("input", [2, 3], "FP32")
        tensor.set_data_from_numpy(ROWS)
        outputs = [face.InferRequestedOutput("probability")]
        found.append(
            client.infer("delay", [tensor], outputs=outputs, headers=plane.bearer, request_id="mine")
        )
        record(plane, AS_ROWS)

    assert found[0].as_numpy("probability").tolist() == found[1].as_numpy("probability").tolist()
    assert found[1].get_response().id == "mine"
    assert found[1].as_numpy("label") is None


class Stub:
    """Calls by plain grpc, with our own messages: what a client made from the .proto files does."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.messages = Messages()

    def call(
        self, name: str, request: Any, *, metadata: Any = (), timeout: float = 10.0, service: str = INFERENCE
    ) -> Any:
        method = self.channel.unary_unary(f"/{service}/{name}")
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return method.with_call(data, metadata=tuple(metadata), timeout=timeout)

    def infer(
        self, plane: Plane, *, more: Any = (), timeout: float = 10.0, **fields: Any
    ) -> tuple[Any, dict[str, str]]:
        """Return the response and its trailing metadata."""
        request = self.messages["ModelInferRequest"](**{"model_name": "delay", **fields})
        answer, call = self.call(
            "ModelInfer", request, metadata=(*plane.bearer.items(), *more), timeout=timeout
        )
        return self.messages["ModelInferResponse"].FromString(answer), dict(call.trailing_metadata())


@pytest.fixture
def stub(plane: Plane) -> Iterator[Stub]:
    made = Stub(plane.rpc_port)
    with closing(made.channel):
        yield made


def fp32(values: list[float], shape: list[int]) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": shape, "contents": {"fp32_contents": values}}


def test_typed_contents_are_answered_typed_and_the_answer_says_what_it_came_from(
    plane: Plane, stub: Stub
) -> None:
    response, told = stub.infer(
        plane, inputs=[fp32(ROWS.ravel().tolist(), [2, 3])], more=[("taut-subject", "s-1")]
    )

    assert list(response.outputs[0].contents.int64_contents) == [1, 1]
    assert sum(response.outputs[1].contents.fp64_contents) == pytest.approx(2, abs=1e-6)
    assert not response.raw_output_contents
    assert (told["taut-model-version"], told["taut-policy-epoch"]) == ("delay@1", "1")
    assert told["taut-request-id"] in logged(plane.data)
    record(plane, AS_ROWS)
    *_, last = PredictionReader(plane.data.home / "log" / "predictions").records()
    assert last.subject == "s-1"


def test_typed_text_and_whole_numbers_are_answered_typed(plane: Plane, stub: Stub) -> None:
    carrier = {"name": "carrier", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"UA"]}}
    distance = {"name": "distance", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [-3]}}

    value, _ = stub.infer(plane, model_name="words", inputs=[carrier, distance])
    label, _ = stub.infer(plane, model_name="named", model_version="7", inputs=[fp32([1, 1, 1], [1, 3])])

    assert list(value.outputs[0].contents.fp64_contents) == [-1.0]
    assert list(label.outputs[0].contents.bytes_contents) == ["spät".encode()]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model_name": ""}, "INVALID_ARGUMENT", "malformed"),
    "a name without end": ({"model_name": "x" * 100_000}, "INVALID_ARGUMENT", "malformed"),
    "more than a gateway takes": (
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3]}], "raw_input_contents": [bytes(8 * 2**20)]},
        "RESOURCE_EXHAUSTED", "too_large",
    ),
    "another model": ({"model_name": "dely"}, "NOT_FOUND", "not_found"),
    "a path for a name": ({"model_name": "../v2/models/delay"}, "NOT_FOUND", "not_found"),
    "another version": ({"model_version": "9"}, "NOT_FOUND", "not_found"),
    "a shape that lies": ({"inputs": [fp32([1, 2, 3], [2, 3])]}, "INVALID_ARGUMENT", "invalid_input"),
    "a negative shape": ({"inputs": [fp32([1, 2, 3], [-1, -3])]}, "INVALID_ARGUMENT", "invalid_input"),
    "NaN": ({"inputs": [fp32([1, float("nan"), 3], [1, 3])]}, "INVALID_ARGUMENT", "invalid_input"),
    "no inputs": ({"inputs": []}, "INVALID_ARGUMENT", "invalid_input"),
    "raw beside typed": (
        {"inputs": [fp32([1, 2, 3], [1, 3])], "raw_input_contents": [b"\0" * 12]}, "INVALID_ARGUMENT", "malformed",
    ),
    "more raw than inputs": (
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3]}], "raw_input_contents": [b"\0" * 12] * 2},
        "INVALID_ARGUMENT", "malformed",
    ),
    "raw of another size": (
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3]}], "raw_input_contents": [b"\0" * 11]},
        "INVALID_ARGUMENT", "invalid_input",
    ),
    "typed of 16 bits": (
        {"inputs": [{"name": "input", "datatype": "FP16", "shape": [1, 3]}]}, "INVALID_ARGUMENT", "invalid_input",
    ),
    "values in another field": (
        {"inputs": [{**fp32([], [1, 3]), "contents": {"fp64_contents": [1, 2, 3]}}]}, "INVALID_ARGUMENT", "invalid_input",
    ),
    "beyond its datatype": (
        {"inputs": [{"name": "x0", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]},
        "INVALID_ARGUMENT", "invalid_input",
    ),
    "an unknown output": (
        {"inputs": [fp32([1, 2, 3], [1, 3])], "outputs": [{"name": "score"}]}, "INVALID_ARGUMENT", "invalid_input",
    ),
    "too many typed values": ({"inputs": [fp32([0.0] * (2**20 + 1), [1, 3])]}, "RESOURCE_EXHAUSTED", "too_large"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_what_rest_refuses_has_its_status_code_in_grpc(
    plane: Plane, stub: Stub, fields: dict[str, Any], status: str, code: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.infer(plane, **{"inputs": [fp32([1, 2, 3], [1, 3])], **fields})

    assert caught.value.code() is grpc.StatusCode[status], caught.value.details()
    assert dict(caught.value.trailing_metadata())["taut-error-code"] == code
    assert caught.value.details()


def test_every_guard_holds_over_grpc(plane: Plane, stub: Stub) -> None:
    good = stub.messages["ModelInferRequest"](model_name="delay", inputs=[fp32([1, 2, 3], [1, 3])])
    auditor = {"authorization": f"Bearer {plane.data.token('eve', roles=('auditor',))}"}
    cases = {
        "no identity": ((), "UNAUTHENTICATED"),
        "a forged one": ((("authorization", "Bearer taut_k1_nonsense"),), "UNAUTHENTICATED"),
        "two of them": ((*plane.bearer.items(), *plane.bearer.items()), "INVALID_ARGUMENT"),
        "no right": (tuple(auditor.items()), "PERMISSION_DENIED"),
        "a deadline that is none": (
            (*plane.bearer.items(), ("taut-deadline-ms", "soon")),
            "INVALID_ARGUMENT",
        ),
        "a priority that is none": ((*plane.bearer.items(), ("taut-priority", "12")), "INVALID_ARGUMENT"),
    }
    for case, (metadata, status) in cases.items():
        with pytest.raises(grpc.RpcError) as caught:
            stub.call("ModelInfer", good, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode[status], (case, caught.value.details())
    for name in ("ModelReady", "ModelMetadata"):
        with pytest.raises(grpc.RpcError) as caught:
            stub.call(name, stub.messages[f"{name}Request"](name="delay"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert stub.call("ModelInfer", good, metadata=((*plane.bearer.items(), ("taut-deadline-ms", "5000"))))


def test_a_message_that_is_none_too_large_or_compressed_is_refused(plane: Plane, stub: Stub) -> None:
    def refused(request: Any, **more: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            stub.channel.unary_unary(f"/{INFERENCE}/ModelInfer")(request, timeout=60, **more)
        return caught.value.code()

    assert refused(b"\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(bytes(9 * 2**20)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = stub.messages["ModelInferRequest"](raw_input_contents=[bytes(7 * 2**20)]).SerializeToString()
    assert refused(bomb, compression=grpc.Compression.Gzip) is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        stub.call("ModelStreamInfer", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_told_and_watched(plane: Plane, stub: Stub) -> None:
    request, response = stub.messages["HealthCheckRequest"], stub.messages["HealthCheckResponse"]
    for service in ("", INFERENCE):
        answer, _ = stub.call("Check", request(service=service), service=HEALTH)
        assert response.FromString(answer).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        stub.call("Check", request(service="other"), service=HEALTH)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.channel.unary_stream(f"/{HEALTH}/Watch")
    known, unknown = (watch(request(service=name).SerializeToString(), timeout=10) for name in ("", "other"))
    assert response.FromString(next(known)).status == 1
    assert response.FromString(next(unknown)).status == 3
    known.cancel()
    unknown.cancel()


def curl(
    plane: Plane, path: str, body: bytes, *headers: str, bearer: bool = True
) -> tuple[int, dict[str, str], bytes]:
    sent = [*headers, *(f"{name}: {value}" for name, value in plane.bearer.items() if bearer)]
    command = ["curl", "-s", "-D", "-", "--data-binary", "@-", "--max-time", "10"]
    for header in sent:
        command += ["-H", header]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{plane.gateway.port}{path}"],
        input=body,
        capture_output=True,
        check=True,
    )
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    found = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), found, answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_is_answered_with_raw_and_with_compressed_bodies(plane: Plane) -> None:
    head = json.dumps(
        {
            "inputs": [
                {"name": "input", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
            ],
            "outputs": [{"name": "probability", "parameters": {"binary_data": True}}],
        }
    ).encode()
    rows = json.dumps({"instances": [INSTANCE] * 200}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"

    status, headers, raw = curl(plane, "/v2/models/delay/infer", head + ROWS.tobytes(), length)
    zipped = curl(
        plane,
        "/v2/models/delay/infer",
        gzip.compress(head + ROWS.tobytes()),
        length,
        "Content-Encoding: gzip",
    )
    many = curl(plane, "/v1/predict/delay", gzip.compress(rows), "Content-Encoding: gzip")
    unread = curl(plane, "/v1/predict/delay", rows, "Content-Encoding: br")

    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    at = int(headers["inference-header-content-length"])
    assert np.frombuffer(raw[at:], "<f8").reshape(2, 2).sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert (zipped[0], zipped[2]) == (200, raw)
    assert (many[0], len(json.loads(many[2])["predictions"])) == (200, 200)
    assert (unread[0], unread[1]["accept-encoding"]) == (415, "gzip, deflate, zstd")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_reads_answers_as_events(plane: Plane) -> None:
    body = json.dumps({"instances": [INSTANCE] * 3}).encode()

    status, headers, data = curl(plane, "/v1/predict/delay", body, "Accept: text/event-stream")

    assert (status, headers["content-type"], headers["connection"]) == (200, "text/event-stream", "close")
    names = [
        line.removeprefix("event: ") for line in data.decode().splitlines() if line.startswith("event: ")
    ]
    assert names == ["predictions", "predictions", "predictions", "done"]
    told = [
        json.loads(line[6:])["request_id"] for line in data.decode().splitlines() if line.startswith("data: ")
    ]
    assert set(told) <= logged(plane.data)
    assert told[0] == told[3] == headers["taut-request-id"]


def test_grpc_serves_on_when_a_gateway_is_killed_and_says_so_while_none_is_there(tmp_path: Path) -> None:
    data = DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
    data.issue(data.endpoint())
    with GatewayProcess(tmp_path) as gateway:
        gateway.start()
        with rpc_process(tmp_path, gateway.port) as (port, process):
            plane, stub = Plane(data, gateway, port, process), Stub(port)
            with closing(stub.channel):
                inputs = [fp32([1, 2, 3], [1, 3])]
                stub.infer(plane, inputs=inputs)
                gateway.kill()
                gateway.start()
                stub.infer(plane, inputs=inputs)  # on a new connection: the kept one is dead
                gateway.kill()
                with pytest.raises(grpc.RpcError) as caught:
                    stub.infer(plane, inputs=inputs, timeout=0.5)  # nobody accepts; the socket is still there
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                gateway.start()
                wait_until(lambda: answers(stub, plane))


def answers(stub: Stub, plane: Plane) -> bool:
    try:
        stub.infer(plane, inputs=[fp32([1, 2, 3], [1, 3])], timeout=1.0)
    except grpc.RpcError:
        return False
    return True


def test_a_drain_finishes_the_calls_under_way_and_a_taken_port_is_refused(tmp_path: Path) -> None:
    data = DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
    data.issue(data.endpoint())
    with GatewayProcess(tmp_path) as gateway:
        gateway.start()
        with rpc_process(tmp_path, gateway.port) as (port, process):
            command = [
                sys.executable,
                "-m",
                "taut.entrypoints.grpc_main",
                "--port",
                str(port),
                "--gateways-port",
                "1",
            ]
            second = subprocess.run(command, capture_output=True, timeout=60, check=False)
            plane, stub = Plane(data, gateway, port, process), Stub(port)
            watch = stub.channel.unary_stream(f"/{HEALTH}/Watch")(b"", timeout=60)
            next(watch)
            done: list[str] = []
            failed: list[grpc.RpcError] = []

            def ask() -> None:
                while True:
                    try:
                        done.append(stub.infer(plane, inputs=[fp32([1, 2, 3], [1, 3])])[1]["taut-request-id"])
                    except grpc.RpcError as error:
                        failed.append(error)
                        return

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            wait_until(lambda: len(done) > 40)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=90) == 0
            took_s = time.monotonic() - started
            for thread in threads:
                thread.join(timeout=90)
            last = stub.messages["HealthCheckResponse"].FromString(list(watch)[-1]).status
            stub.channel.close()

    assert (second.returncode, b"cannot be taken" in second.stderr) == (5, True)
    assert {error.code() for error in failed} == {grpc.StatusCode.UNAVAILABLE}
    assert last == 2
    assert took_s < 20
    assert set(done) <= logged(data)
