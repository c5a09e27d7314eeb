"""A graph as its builder lives with it: composed, judged, approved, released, asked over every protocol, rolled back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from collector import Collector
from installation import ORDER, Installation, Json, Up, until
from test_stream_commands import all_of, publish

from processes import children

pytestmark = pytest.mark.xdist_group("graphs")

SPAN, WHOLE, KILLED = "00f067aa0ba902b7", "1" * 32, "2" * 32
MORE = """

@taut.model(
    "straight", dataset=orders, features=[load], request=["warehouse", "items", "distance_km"], label="late",
    label_at="arrived_at", split=taut.by_time(test="20d", gap="1d"), approval=taut.approval(1),
    resources=taut.Resources(cpu=1, memory="2GiB", timeout="5m"),
)
def straight(ctx: taut.TrainContext) -> taut.Trained:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = ["items", "distance_km", "waiting"]
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    model.fit(ctx.train.select(numbers), ctx.train["late"])
    return taut.Trained(model, inputs=numbers, output="probability")


TREES, STRAIGHT = taut.node(train), taut.node(straight)
blend = taut.Graph(
    "blend", nodes={"trees": TREES, "straight": STRAIGHT, "blend": taut.average("trees", "straight", weights=(0.75, 0.25))},
    output="blend", approval=taut.approval(1), gates=[taut.metric("auc", minimum=0.65), taut.no_regression("auc", tolerance=0.1)],
)
strict = taut.Graph(
    "strict", nodes={"trees": TREES, "straight": STRAIGHT, "vote": taut.vote("trees", "straight")}, output="vote",
    gates=[taut.metric("auc", minimum=0.999)],
)
stacked = taut.Graph(
    "stacked", nodes={"trees": TREES, "straight": taut.node(straight, inputs={"distance_km": "trees.probability"}),
    "first": taut.first_confident(["trees", "straight"], at=0.8)}, output="first",
)
@taut.model(
    "guess", dataset=orders, request=["items", "distance_km"], label="late", label_at="arrived_at",
    split=taut.by_time(test="20d", gap="1d"), resources=taut.Resources(cpu=1, memory="2GiB", timeout="5m"),
)
def guess(ctx: taut.TrainContext) -> taut.Trained:
    from guessing import Guess

    return taut.Trained(Guess(float(ctx.train["late"].mean())), inputs=["items", "distance_km"], output="probability")


mixed = taut.Graph(
    "mixed", nodes={"trees": TREES, "guess": taut.node(guess), "both": taut.average("trees", "guess", tolerate=1)},
    output="both",
)
mingled = taut.Endpoint("mingled", model=mixed, release=taut.Direct())
blended = taut.Endpoint("blended", model=blend, release=taut.Direct())
plain = taut.Endpoint("plain", model=straight, release=taut.Direct())
"""


GUESSING = """
from dataclasses import dataclass

import numpy as np


@dataclass
class Guess:
    share: float

    def __call__(self, columns):
        return np.clip(self.share + 0.001 * columns["distance_km"], 0.0, 1.0)
"""


@pytest.fixture(scope="module")
def template(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The small project with a second model, both live on endpoints of their own."""
    shop = released_template.copy_to(tmp_path_factory.mktemp("graphs") / "shop")
    project = shop.folder / "project.py"
    project.write_text(project.read_text() + MORE)
    shop.write("guessing.py", GUESSING)
    shop("apply")
    assert shop("train", "straight")["verdict"] == "admit"
    assert shop("train", "guess")["verdict"] == "admit"
    shop("model", "approve", "straight@1")
    shop("release", "start", "plain", "1")
    return shop


@pytest.fixture
def shop(template: Installation, tmp_path: Path) -> Installation:
    return template.copy_to(tmp_path / "shop")


def share(up: Up, bearer: str, endpoint: str, order: Json) -> float:
    answer = httpx.post(
        f"{up.data}/v1/predict/{endpoint}", json={"instances": [order]}, timeout=20.0,
        headers={"authorization": f"Bearer {bearer}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return float(answer.json()["predictions"][0]["probability"])


def test_a_graph_lives_as_a_model_does(shop: Installation) -> None:
    composed = shop("train", "blend")
    assert (composed["version"], composed["verdict"]) == ("blend@1", "admit")
    assert composed["metrics"]["auc"] > 0.65
    assert shop("model", "compose", "blend")["version"] == "blend@1"  # the same nodes under the same rules
    assert shop("model", "show", "blend@1")["state"] == "candidate"
    assert "approve" in json.dumps(shop("release", "start", "blended", "1", expect=10))

    shop("model", "approve", "blend@1")
    assert shop("release", "start", "blended", "1")["state"] == "live"
    assert shop("model", "verify", "blend@1")["ok"]

    with shop.up() as up:
        bearer = up.token()
        here = {key: ORDER[key] for key in ("warehouse", "items", "distance_km")}
        wanted = 0.75 * share(up, bearer, "late", ORDER) + 0.25 * share(up, bearer, "plain", here)
        assert share(up, bearer, "blended", ORDER) == pytest.approx(wanted, abs=1e-6)
        assert over_v2(up, bearer) == pytest.approx(wanted, abs=1e-6)
        assert over_grpc(up, bearer) == pytest.approx(wanted, abs=1e-6)

        asked = httpx.post(
            f"{up.data}/v1/predict/blended", json={"instances": [ORDER]},
            headers={"authorization": f"Bearer {bearer}"}, timeout=60.0,
        ).json()  # fmt: skip
        told = json.dumps(shop("why", asked["request_id"]))
        for name in ("trees=late@1", "straight=straight@1", "model:late@1", "model:straight@1", "features"):
            assert name in told, name

        publish(shop, ORDER, {**ORDER, "items": "many"})
        counts = shop("stream", "run", "blended", "--from", "orders", "--to", "answers", "--until-empty")
        assert (counts["received"], counts["answered"], counts["dead"]) == (2, 1, 1)
        (delivery,) = all_of(shop, "answers")
        assert delivery.event is not None
        streamed = json.loads(delivery.event.data)
        assert streamed["model_version"] == "blend@1"
        assert streamed["predictions"][0]["probability"] == pytest.approx(wanted, abs=1e-6)
        assert "straight=straight@1" in json.dumps(shop("why", streamed["request_id"]))

        project = shop.folder / "project.py"
        project.write_text(project.read_text().replace("(0.75, 0.25)", "(0.25, 0.75)"))
        shop("apply")
        assert shop("train", "blend")["version"] == "blend@2"
        shop("model", "approve", "blend@2")
        shop("release", "start", "blended", "2")
        turned = 0.25 * share(up, bearer, "late", ORDER) + 0.75 * share(up, bearer, "plain", here)
        assert share(up, bearer, "blended", ORDER) == pytest.approx(turned, abs=1e-6)
        shop("rollback", "blended")
        assert share(up, bearer, "blended", ORDER) == pytest.approx(wanted, abs=1e-6)


def over_v2(up: Up, bearer: str) -> float:
    kinds = {"warehouse": "BYTES", "carrier": "BYTES", "items": "INT64", "distance_km": "FP64"}
    tensors = [{"name": key, "datatype": kinds[key], "shape": [1], "data": [ORDER[key]]} for key in ORDER]
    answer = httpx.post(
        f"{up.data}/v2/models/blended/infer", json={"inputs": tensors}, headers={"authorization": f"Bearer {bearer}"}, timeout=60.0
    )  # fmt: skip
    found = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    return float(found["probability"][1])


def over_grpc(up: Up, bearer: str) -> float:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{up.port + 2}")
    inputs = []
    for key, kind, dtype in (
        ("warehouse", "BYTES", object), ("carrier", "BYTES", object), ("items", "INT64", np.int64), ("distance_km", "FP64", np.float64),
    ):  # fmt: skip
        tensor = triton.InferInput(key, [1], kind)
        tensor.set_data_from_numpy(np.array([ORDER[key]], dtype=dtype))
        inputs.append(tensor)
    with contextlib.closing(client):
        found = client.infer("blended", inputs, headers={"authorization": f"Bearer {bearer}"})
    return float(found.as_numpy("probability").reshape(-1)[1])


def test_the_gate_measures_the_whole_graph_and_refuses_one_below_its_minimum(shop: Installation) -> None:
    told = shop("train", "strict", expect=10)
    assert told["verdict"] == "reject"
    assert any("auc" in reason for reason in told["reasons"])

    stacked = shop("train", "stacked")
    card = shop("model", "show", "stacked@1")
    assert (stacked["verdict"], card["card"]["form"]) == ("admit", "graph")
    outcomes = {check["name"]: check["outcome"] for check in card["card"]["checks"]}
    assert set(outcomes.values()) == {"passed"}, outcomes


def test_a_graph_that_a_person_rejected_is_not_composed_another_time(shop: Installation) -> None:
    assert shop("train", "blend")["verdict"] == "admit"
    shop("model", "reject", "blend@1")
    told = shop("train", "blend", expect=10)
    assert (told["version"], told["verdict"]) == ("blend@1", "reject")
    assert "was rejected before" in told["reasons"][0]


def test_what_does_not_fit_together_is_refused(shop: Installation) -> None:
    said = shop.refused(
        "model", "compose", "blend", "--node", "tree=late@1", exit_code=2, code="invalid_input"
    )
    assert "did you mean 'trees'" in said
    said = shop.refused(
        "model", "compose", "blend", "--node", "trees=straight@1", exit_code=2, code="invalid_input"
    )
    assert "is of model late" in said
    said = shop.refused("train", "blend", "-p", "depth=3", exit_code=2, code="invalid_input")
    assert "is a graph" in said


def workers(up: Up) -> list[int]:
    """Return the processes below the gateway's zygote."""
    return [worker for zygote in children(up.pid("gateway-0")) for worker in children(zygote)]


def test_code_is_a_node_whose_killed_worker_costs_no_answer(shop: Installation) -> None:
    assert shop("train", "mixed")["version"] == "mixed@1"
    shop("release", "start", "mingled", "1")
    scored = shop("batch", "mingled", "--from", "orders", "--to", "scores")
    assert (scored["version"], scored["rejected_rows"]) == ("mixed@1", 0)
    shares = {}
    for name, result in (("mingled", "scores"), ("late", "trees"), ("guess", "guesses")):
        shop("batch", name, "--from", "orders", "--to", result)
        (row,) = shop("batch", "get", result, "--key", "17")["rows"]
        shares[name] = row["probability"]
    assert shares["mingled"] == pytest.approx((shares["late"] + shares["guess"]) / 2, abs=1e-6)

    with Collector().running() as collector:
        shop.environ = {"TAUT_OTLP": collector.url, "TAUT_OTLP_RATIO": "0"}
        with shop.up() as up:
            _kill_the_worker_of_a_node(up)
            until(lambda: len(spans_of(collector, KILLED)) >= 4, said=lambda: str(collector.requests))
            whole, died = spans_of(collector, WHOLE), spans_of(collector, KILLED)
    for trace in (whole, died):
        own = next(span for span in trace if span["parentSpanId"] == SPAN)
        model = next(span for span in trace if span["name"] == "model")
        nodes = [span for span in trace if span["name"].startswith("node ")]
        assert {"node trees", "node guess"} <= {span["name"] for span in nodes}
        assert {span["parentSpanId"] for span in nodes} == {own["spanId"]}
        assert all(int(model["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) for span in nodes)
        assert all(int(span["endTimeUnixNano"]) <= int(model["endTimeUnixNano"]) for span in nodes)


def spans_of(collector: Collector, trace: str) -> list[Json]:
    return [span for span in collector.spans() if span["traceId"] == trace]


def _kill_the_worker_of_a_node(up: Up) -> None:
    bearer = up.token()
    url, headers = f"{up.data}/v1/predict/mingled", {"authorization": f"Bearer {bearer}"}

    def ask(trace: str) -> httpx.Response:
        traced = {**headers, "traceparent": f"00-{trace}-{SPAN}-01"}
        return httpx.post(url, json={"instances": [ORDER]}, headers=traced, timeout=60.0)

    whole, alone = ask(WHOLE).json()["predictions"][0]["probability"], share(up, bearer, "late", ORDER)
    assert whole != pytest.approx(alone)
    (worker,) = workers(up)  # trees run in the gateway, code never does
    os.kill(worker, signal.SIGKILL)
    answers = [ask(KILLED)]
    until(lambda: answers.append(ask("3" * 32)) is None and "taut-fallback" not in answers[-1].headers)

    assert {one.status_code for one in answers} == {200}
    assert {one.headers.get("taut-fallback") for one in answers} <= {None, "without=guess"}
    for one in answers:
        found = one.json()["predictions"][0]["probability"]
        assert found == pytest.approx(alone if "taut-fallback" in one.headers else whole, abs=1e-6)
