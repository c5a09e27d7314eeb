"""The runner's answers: those of the data plane, by the model here or by the cloud, each marked and counted."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.edge import Moments
from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.entrypoints.edge.package import runner_files
from taut.serving import gateway as gateway_face
from taut.serving.edge import verify_bundle
from taut.serving.edge.bundle import edge_signature
from taut.serving.edge.calling import Caller
from taut.serving.edge.cascade import Cloud
from taut.serving.edge.core import EdgeGateway, EdgeWorld
from taut.serving.edge.state import EdgeState
from taut.serving.gateway.ids import RequestIds
from taut.serving.gateway.replies import Reply
from taut.serving.runtime import load
from taut.testing.edge import bundle_files
from taut.testing.serving import STATUSES, matrix_signature
from taut.testing.world import SeededRandom, SequenceIds

ROOT = Path(__file__).parents[4]
SURE, UNSURE = {"x0": 4.0, "x1": 4.0}, {"x0": 0.1, "x1": 0.1}


def sum_model(width: int) -> bytes:
    """Return ONNX of the sum of a row."""
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [width, 1], [1.0] * width)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["value"])], "sum",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])], [weights],
    )  # fmt: skip
    return _bytes(graph)


def ignoring_model() -> bytes:
    """Return ONNX of a classifier that looks for what is no number, and takes it as 0."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("IsNaN", ["input"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "input"], ["known"]),
        helper.make_node("Softmax", ["known"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "ignoring", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])],
    )  # fmt: skip
    return _bytes(graph)


def _bytes(graph: Any) -> bytes:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: bytes = model.SerializeToString()
    return found


class CloudAt:
    """An endpoint that answers as it is told to: what the rows say, a status, nonsense, or nothing until it is let go."""

    def __init__(self) -> None:
        self.mode: str = "answer"
        self.asked: list[Any] = []
        self.let_go = threading.Event()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
                cloud.asked.append((self.headers["authorization"], rows))
                status, document = cloud.reply(rows)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/predict/delay"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, rows: list[Any]) -> tuple[int, Any]:
        if self.mode == "late":
            self.let_go.wait(30)
        if self.mode.isdigit():
            return int(self.mode), {"error": {"code": "x", "message": "y", "request_id": "z"}}
        if self.mode == "nonsense":
            return 200, {
                "predictions": [{"label": "maybe", "probability": 0.5}] * len(rows),
                "request_id": "r",
                "model_version": "v",
            }
        if self.mode == "few":
            rows = rows[1:]
        predictions = [{"label": 1, "probability": 0.99}] * len(rows)
        return 200, {"predictions": predictions, "request_id": "req_cloud", "model_version": "delay@7"}


@pytest.fixture
def cloud() -> Iterator[CloudAt]:
    made = CloudAt()
    yield made
    made.server.shutdown()
    made.server.server_close()


Make = Callable[..., EdgeGateway]


@pytest.fixture
def make(tmp_path: Path, cloud: CloudAt) -> Iterator[Make]:
    """Makes a gateway over a bundle; with `threshold`, one that asks the cloud."""
    closing: list[Callable[[], None]] = []
    (tmp_path / "token").write_text("s3cret\n")

    def gateway(*, threshold: float | None = None, timeout_s: float = 5.0, **contents: Any) -> EdgeGateway:
        bundle = verify_bundle(bundle_files(FileKeys(tmp_path / "keys", random=SeededRandom()), **contents))
        state = EdgeState(tmp_path / "state", bundle=bundle.id, now_us=1, ids=SequenceIds())
        closing.append(state.close)
        asked = None
        if threshold is not None:
            caller = Caller(cloud.url, token_file=tmp_path / "token")
            asked = Cloud(
                caller, bundle.signature, columns=["x0", "x1"], threshold=threshold, timeout_s=timeout_s,
                counter_ns=time.perf_counter_ns,
            )  # fmt: skip
            closing.extend([asked.close, caller.close])
        failures: list[BaseException] = []
        world = EdgeWorld(
            lambda: 5,
            time.perf_counter_ns,
            RequestIds(SeededRandom()),
            STATUSES,
            lambda _, error: failures.append(error),
            "0",
        )
        closing.append(lambda: _none(failures))
        made = EdgeGateway(bundle, load(bundle.model, bundle.signature), world, state=state, cloud=asked)
        made.state = state  # type: ignore[attr-defined]  # for tests to look at
        return made

    yield gateway
    cloud.let_go.set()
    for close in closing:
        close()


def _none(failures: list[BaseException]) -> None:
    assert not failures


def ask(gateway: EdgeGateway, *rows: Any, path: str = "/v1/predict/delay", **headers: str) -> Reply:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    found = gateway.answer("POST", path, pairs, msgspec.json.encode({"instances": rows}))
    return found if isinstance(found, Reply) else asyncio.run(found)


def ask_all(gateway: EdgeGateway, count: int, row: Any) -> list[Reply]:
    """Ask one after the other within one event loop, as a runner does."""

    async def each() -> list[Reply]:
        found = []
        for _ in range(count):
            one = gateway.answer("POST", "/v1/predict/delay", [], msgspec.json.encode({"instances": [row]}))
            found.append(one if isinstance(one, Reply) else await one)
        return found

    return asyncio.run(each())


def said(reply: Reply) -> Any:
    return msgspec.json.decode(reply.body)


def counts(gateway: EdgeGateway) -> Any:
    return gateway.state.now.counts  # type: ignore[attr-defined]  # set by the fixture


def test_both_protocols_answer_the_same_and_say_who_did(make: Make) -> None:
    gateway = make()
    v1 = said(ask(gateway, SURE))
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [4.0, 4.0]}
    found = gateway.answer(
        "POST", "/v2/models/delay/versions/1/infer", [], msgspec.json.encode({"id": "a", "inputs": [tensor]})
    )
    assert isinstance(found, Reply)
    v2 = said(found)

    assert v1["predictions"][0]["label"] == 1
    assert v1["model_version"] == "delay@1"
    assert (v2["id"], v2["model_version"], v2["parameters"]) == ("a", "1", {"answered_by": "edge"})
    assert v2["outputs"][1]["data"][1] == v1["predictions"][0]["probability"]
    assert b"taut-answered-by: edge" in found.head


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/v1/predict/delay", [], b"{", 400, "malformed"),
        ("POST", "/v1/predict/delay", [], b'{"instances": []}', 422, "invalid_input"),
        ("POST", "/v1/predict/delay", [], b'{"instances": [{"x0": "a", "x1": 1}]}', 422, "invalid_input"),
        ("POST", "/v1/predict/delay", [(b"content-encoding", b"gzip")], b"", 415, "unsupported_encoding"),
        ("POST", "/v2/models/delay/infer", [(b"inference-header-content-length", b"2")], b"{}", 400, "malformed"),
        ("POST", "/v1/predict/delay", [(b"taut-deadline-ms", b"soon")], b"{}", 400, "malformed"),
        ("POST", "/v1/predict/delay", [(b"host", b"a"), (b"host", b"b")], b"{}", 400, "malformed"),
        ("GET", "/v1/predict/delay", [], b"", 405, "method_not_allowed"),
        ("POST", "/v2/health/live", [], b"", 405, "method_not_allowed"),
        ("POST", "/v1/predict/other", [], b"{}", 404, "not_found"),
        ("POST", "/v2/models/delay/versions/2/infer", [], b"{}", 404, "not_found"),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_data_plane(
    make: Make, method: str, path: str, headers: Any, body: bytes, status: int, code: str
) -> None:
    found = make().answer(method, path, headers, body)

    assert isinstance(found, Reply)
    assert (found.status, said(found)["error"]["code"]) == (status, code)
    assert said(found)["error"]["request_id"].startswith("req_")


def test_what_is_counted_names_who_how_fast_how_sure_and_what_was_strange(make: Make) -> None:
    gateway = make(signature=matrix_signature(2, nullable=True), ranges={"x0": (0.0, 1.0)})
    ask(gateway, SURE, {"x0": 0.5, "x1": 4.0})
    ask(gateway, {"x0": "a"})

    found = counts(gateway)
    assert (found.requests, found.rows, found.edge_rows, found.cloud_rows) == (1, 2, 2, 0)
    assert (found.errors, found.outside, found.nulls) == ({"invalid_input": 1}, {"x0": 1}, {})
    assert (sum(found.latency.values()), found.labels) == (1, {"1": 2})
    assert sum(found.confidence.values()) == 2


def test_a_regressors_values_and_absent_inputs_are_counted(make: Make) -> None:
    columns = tuple(Column(f"x{at}", DType.FLOAT, nullable=True) for at in range(2))
    signature = ModelSignature(
        request=columns, inputs=tuple(ModelInput(column=one) for one in columns), output="value"
    )
    gateway = make(signature=signature, model=sum_model(2))
    answer = ask(gateway, {"x0": 1.0, "x1": 2.0}, {"x0": 3.0, "x1": 4.0})
    refused = ask(gateway, {"x0": 1.0})  # null becomes NaN, and so does this model's answer

    assert [row["value"] for row in said(answer)["predictions"]] == [3.0, 7.0]
    assert said(refused)["error"]["code"] == "bad_answer"
    found = counts(gateway)
    assert found.values == Moments(count=2, total=10.0, squares=58.0, minimum=3.0, maximum=7.0)
    assert (found.labels, found.confidence, found.errors) == ({}, {}, {"bad_answer": 1})


def test_nulls_are_counted_by_input(make: Make) -> None:
    gateway = make(signature=matrix_signature(2, nullable=True), model=ignoring_model())
    ask(gateway, {"x0": 1.0}, {"x0": 1.0, "x1": None}, {"x1": 2.0})

    assert counts(gateway).nulls == {"x0": 1, "x1": 2}


def test_only_unsure_rows_are_asked_again_and_each_says_by_whom(make: Make, cloud: CloudAt) -> None:
    gateway = make(threshold=0.9)
    sure, mixed = ask(gateway, SURE), ask(gateway, SURE, UNSURE)

    assert said(sure)["answered_by"] == "edge"
    assert cloud.asked == [("Bearer s3cret", [UNSURE])]
    told = said(mixed)
    assert [row["answered_by"] for row in told["predictions"]] == ["edge", "cloud"]
    assert (told["answered_by"], told["predictions"][1]["probability"]) == ("mixed", 0.99)
    assert told["cloud"] == {"model_version": "delay@7", "request_id": "req_cloud"}
    found = counts(gateway)
    assert (found.edge_rows, found.cloud_rows, found.fallback_rows) == (2, 1, 0)


@pytest.mark.parametrize("mode", ["late", "500", "401", "422", "nonsense", "few"])
def test_when_the_cloud_gives_no_answer_the_edges_own_is_given(make: Make, cloud: CloudAt, mode: str) -> None:
    cloud.mode = mode
    gateway = make(threshold=0.9, timeout_s=0.15)
    (answer,) = ask_all(gateway, 1, UNSURE)

    assert answer.status == 200
    assert said(answer)["predictions"][0]["answered_by"] == "edge"
    assert b"taut-fallback: edge" in answer.head
    assert counts(gateway).fallback_rows == 1


def test_the_callers_deadline_bounds_the_wait_for_the_cloud(make: Make, cloud: CloudAt) -> None:
    cloud.mode = "late"
    gateway = make(threshold=0.9, timeout_s=60.0)

    assert said(ask(gateway, UNSURE, taut_deadline_ms="100"))["answered_by"] == "edge"


def test_callers_in_a_hurry_do_not_keep_the_others_from_the_cloud(make: Make, cloud: CloudAt) -> None:
    cloud.mode = "late"
    gateway = make(threshold=0.9, timeout_s=60.0)
    hurried = [ask(gateway, UNSURE, taut_deadline_ms=limit) for limit in ("20", "20", "20", "20", "1", "1")]
    assert {said(answer)["answered_by"] for answer in hurried} == {"edge"}
    assert len(cloud.asked) <= 4
    cloud.mode = "answer"

    assert said(ask(gateway, UNSURE))["answered_by"] == "cloud"


def test_a_dead_cloud_is_left_alone_and_does_not_cost_every_request_its_time_out(
    make: Make, cloud: CloudAt
) -> None:
    cloud.mode = "late"
    gateway = make(threshold=0.9, timeout_s=0.1)
    answers = ask_all(gateway, 40, UNSURE)

    assert {said(answer)["answered_by"] for answer in answers} == {"edge"}
    assert len(cloud.asked) <= 3  # a busy machine may give one up before it went out
    assert any("the cloud is left alone" in reason for reason in gateway.reasons())


def test_rows_that_the_cloud_does_not_take_do_not_open_the_breaker(make: Make, cloud: CloudAt) -> None:
    cloud.mode = "422"
    gateway = make(threshold=0.9)
    ask_all(gateway, 10, UNSURE)

    assert len(cloud.asked) == 10
    assert gateway.reasons() == []


def test_a_regressor_has_no_confidence_and_no_cascade(tmp_path: Path) -> None:
    columns = (Column("x0", DType.FLOAT),)
    signature = ModelSignature(request=columns, inputs=(ModelInput(column=columns[0]),), output="value")
    caller = Caller("http://127.0.0.1:1/", token_file=None)

    with pytest.raises(InvalidInput, match="without --cloud"):
        Cloud(
            caller, signature, columns=["x0"], threshold=0.5, timeout_s=1.0, counter_ns=time.perf_counter_ns
        )
    with pytest.raises(InvalidInput, match="--confidence"):
        Cloud(
            caller,
            matrix_signature(1),
            columns=["x0"],
            threshold=1.5,
            timeout_s=1.0,
            counter_ns=time.perf_counter_ns,
        )


def test_features_become_columns_of_the_request_and_the_event_time_stays_last() -> None:
    asked = (Column("origin", DType.STRING), Column("at", DType.DATETIME, nullable=True))
    wind = Column("wind", DType.FLOAT, nullable=True)
    lookup = FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",))
    signature = ModelSignature(
        request=asked, inputs=(ModelInput(column=wind, feature_set="weather"),), lookups=(lookup,), event_time="at",
        output="value",
    )  # fmt: skip

    found = edge_signature(signature)

    assert [column.name for column in found.request] == ["origin", "wind", "at"]
    assert (found.lookups, found.inputs) == ((), (ModelInput(column=wind),))
    twice = msgspec.structs.replace(signature, request=(Column("wind", DType.FLOAT), *asked))
    with pytest.raises(InvalidInput, match="'wind' is a request column and a feature"):
        edge_signature(twice)


def test_the_runner_imports_nothing_that_a_device_lacks() -> None:
    """Whoever lets a module that the runner shares with the gateway import more finds out here."""
    libraries = {"cryptography", "httptools", "msgspec", "numpy", "onnxruntime", "uvicorn"}
    found: dict[str, set[str]] = {}
    for name, source in runner_files().items():
        for node in ast.walk(ast.parse(source)) if name.endswith(".py") else ():
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                found.setdefault(module.partition(".")[0], set()).add(name)
    foreign = {name: files for name, files in found.items() if name not in sys.stdlib_module_names}

    assert set(foreign) == {*libraries, "taut"}, foreign


def test_every_name_of_the_gateways_face_is_there() -> None:
    assert {name for name in gateway_face.__all__ if getattr(gateway_face, name, None) is not None} == set(
        gateway_face.__all__
    )


def test_the_requirements_of_a_bundle_are_those_of_the_lock() -> None:
    shown = subprocess.run([sys.executable, ROOT / "tools/edge_requirements"], capture_output=True, text=True)

    assert shown.stdout == (ROOT / "src/taut/entrypoints/edge/requirements.txt").read_text()
    assert {"msgspec", "numpy", "onnxruntime", "cffi"} <= {
        line.partition("==")[0] for line in shown.stdout.splitlines()
    }
