"""A callable as a model, from `taut train` to answers: code of the project that runs in workers and jobs only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from installation import ORDER, Installation, Up, until
from tritonclient.utils import InferenceServerException

from taut.adapters.bus.records import RecordsBus
from taut.adapters.records import open_sqlite
from taut.adapters.world import SystemClock, SystemRandom
from taut.bootstrap.platform import open_platform
from taut.core.cloudevents import Event
from taut.lifecycle.registry import verify_export

pytestmark = pytest.mark.xdist_group("code")

MODEL = '''"""A model of our own: its weights are fields, its rule is code."""

import os
import time
from dataclasses import dataclass

import numpy as np

from helpers import numbers


@dataclass
class Late:
    weights: np.ndarray
    carriers: dict[str, float]

    def __call__(self, columns):
        misbehave(columns["distance_km"][0])
        said = numbers.wide(columns) @ self.weights
        said = said + np.array([self.carriers.get(name, 0.0) for name in columns["carrier"]])
        return 1 / (1 + np.exp(-said))


def misbehave(distance_km):
    if distance_km == 401:
        raise RuntimeError("what only the log may know")
    if distance_km == 402:
        os._exit(0)
    if distance_km == 403:
        while True:
            time.sleep(1)


def half(columns):
    return np.full(len(columns["items"]), 0.5)
'''

HELPERS = """import numpy as np


def wide(columns):
    numbers = [np.nan_to_num(columns[name], nan=40.0) for name in ("items", "distance_km", "waiting")]
    return np.stack([*numbers, np.ones(len(numbers[0]))], axis=1) / np.array([12.0, 30.0, 15.0, 1.0])
"""

TRAIN = """    import numpy as np

    from helpers import numbers
    from scoring import Late

    rows = ctx.train
    columns = {name: rows[name].cast(pl.Float64).fill_null(40.0).to_numpy() for name in ("items", "distance_km", "waiting")}
    wide, late = numbers.wide(columns), rows["late"].to_numpy().astype(float)
    weights, *_ = np.linalg.lstsq(wide, (late - 0.3) * 4, rcond=None)
    model = Late(weights=weights, carriers={"bike": 0.8, "post": 0.3, "van": -0.2})
    return taut.Trained(model, inputs=["carrier", "items", "distance_km", "waiting"], output="probability")
"""


def code_project(made: Installation) -> None:
    """Turn the project of `taut init` into one whose model is code."""
    project = (made.folder / "project.py").read_text()
    begin, end = project.index("    from sklearn.compose"), project.index("\n\nlate = taut.Endpoint")
    project = project[:begin] + TRAIN + project[end:]
    made.write("project.py", project.replace("slo=taut.SLO(latency_p95_ms=20)", "workers=2"))
    made.write("scoring.py", MODEL)
    made.write("helpers/numbers.py", HELPERS)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A project with a code model, trained and approved."""
    folder = tmp_path_factory.mktemp("code") / "shop"
    Installation(folder.parent)("init", folder.name)
    made = Installation(folder)
    code_project(made)
    made("apply")
    for dataset in ("orders", "backlog"):
        made("data", "ingest", dataset)
    trained = made("train", "late")
    assert trained["verdict"] == "admit", trained
    made("model", "approve", "late@1")
    return made


@pytest.fixture(scope="module")
def running(shop: Installation) -> Installation:
    """A copy of it that runs: sockets cannot be copied."""
    return shop.copy_to(shop.folder.parent / "running")


@pytest.fixture(scope="module")
def live(running: Installation) -> Iterator[Up]:
    """The platform with the code model live."""
    shop = running
    assert shop("release", "start", "late", "1")["state"] == "live"
    with shop.up() as up:
        yield up


@pytest.fixture(scope="module")
def bearer(live: Up) -> str:
    return live.token()


def ask(live: Up, bearer: str, **changes: Any) -> httpx.Response:
    return live.ask(bearer, {**ORDER, **changes})


def test_the_card_and_why_say_that_a_model_is_code(shop: Installation) -> None:
    shown = shop("model", "show", "late@1")
    why = shop("why", "late@1")
    registered = why["tree"]["made_by"][0]

    assert shown["card"]["form"] == "code"
    assert shown["card"]["kind"] == "code scoring:Late"
    assert "**code scoring:Late** of the bundle `sha256:" in shown["card_markdown"]
    assert (registered["activity"], registered["facts"]["form"]) == ("register", "code")
    assert set(shop("model", "verify", "late@1")["files"]) == {"model.taut"}
    checks = {check["name"]: check for check in shown["card"]["checks"]}
    assert "of the run's own bundle, with numpy" in checks["artifact"]["message"]
    assert {check["outcome"] for check in checks.values()} == {"passed"}


def test_who_wants_code_where_it_never_runs_is_told_so(shop: Installation, tmp_path: Path) -> None:
    other = shop.copy_to(tmp_path / "shop")
    other.write(
        "project.py", (other.folder / "project.py").read_text().replace("workers=2", 'runtime="inline"')
    )
    other("apply")

    told = other("release", "start", "late", "1", expect=10)

    assert told["verdict"] == "reject"
    assert (
        'late@1 is code, which runs in worker processes only, and endpoint late says runtime="inline"'
        in str(told)
    )
    on_gpu = (other.folder / "project.py").read_text().replace('runtime="inline"', 'placement="cuda:0"')
    other.write("project.py", on_gpu)
    other("apply")
    told = other("release", "start", "late", "1", expect=10)
    assert "late@1 is code, which runs on the CPU" in str(told)
    assert "only ONNX models have variants" in other.refused(
        "model", "optimise", "late@1", exit_code=5, code="conflict"
    )
    edge = ("model", "export", "late@1", "--edge", str(tmp_path / "late.pyz"), "--features-in-request")
    told = other.refused(*edge, exit_code=2, code="invalid_input")
    assert "late@1 is a code model: devices run single ONNX models" in told


def test_code_answers_over_every_face_from_workers(live: Up, bearer: str) -> None:
    plain = ask(live, bearer)
    headers = {"authorization": f"Bearer {bearer}"}
    tensors = [
        {"name": name, "shape": [1], "datatype": kind, "data": [ORDER[name]]}
        for name, kind in (
            ("warehouse", "BYTES"),
            ("carrier", "BYTES"),
            ("items", "INT64"),
            ("distance_km", "FP64"),
        )
    ]
    rest = httpx.post(
        f"{live.data}/v2/models/late/infer", json={"inputs": tensors}, headers=headers, timeout=60
    )

    assert plain.status_code == rest.status_code == 200, (plain.text, rest.text)
    probability = plain.json()["predictions"][0]["probability"]
    outputs = {item["name"]: item["data"] for item in rest.json()["outputs"]}
    assert outputs["probability"][-1] == pytest.approx(probability)
    many = httpx.post(
        f"{live.data}/v1/predict/late", json={"instances": [{**ORDER, "items": n} for n in range(1, 40)]},
        headers=headers, timeout=60,
    )  # fmt: skip
    assert len({item["probability"] for item in many.json()["predictions"]}) == 39
    assert ask(live, bearer, carrier="bike").json() != ask(live, bearer, carrier="van").json()


@pytest.mark.parametrize("face", [triton_http, triton_grpc], ids=["REST", "gRPC"])
def test_code_is_asked_and_answers_in_raw_tensors(live: Up, bearer: str, face: Any) -> None:
    orders = [ORDER, {**ORDER, "carrier": "van", "distance_km": 3.5}]
    headers = {"authorization": f"Bearer {bearer}"}
    kinds = {"warehouse": ("BYTES", object), "carrier": ("BYTES", object), "items": ("INT64", np.int64), "distance_km": ("FP64", np.float64)}  # fmt: skip
    inputs = []
    for name, (kind, dtype) in kinds.items():
        made = face.InferInput(name, [2], kind)
        made.set_data_from_numpy(np.array([order[name] for order in orders], dtype=dtype))
        inputs.append(made)
    outputs = [face.InferRequestedOutput("probability")]  # raw, as Triton's clients ask for it
    port = live.port if face is triton_http else live.port + 2
    with contextlib.closing(face.InferenceServerClient(f"127.0.0.1:{port}")) as client:
        found = client.infer("late", inputs, outputs=outputs, headers=headers).as_numpy("probability")
        inputs[3].set_data_from_numpy(np.array([401.0, 1.0]))  # the code raises at this one
        with pytest.raises(InferenceServerException) as refused:
            client.infer("late", inputs, outputs=outputs, headers=headers)

    said = [ask(live, bearer, **order).json()["predictions"][0]["probability"] for order in orders]
    assert found[:, -1].tolist() == pytest.approx(said)
    assert "raised RuntimeError in scoring.py" in str(refused.value.message())


def test_each_worker_is_on_record_as_admitted_and_each_answer_says_which_computed_it(
    live: Up, bearer: str, running: Installation
) -> None:
    workers = running("fleet", "status")["replicas"][0]["workers"]
    assert {one["worker"] for one in workers} == {"late@1"}
    assert {one["stage"] for one in workers} == {"admitted"}
    answered = ask(live, bearer)
    assert answered.status_code == 200
    found = running("why", answered.headers["taut-request-id"])
    incarnations = {f"late@1#{one['incarnation']}" for one in workers}
    assert found["request"]["worker"] in incarnations

    revoked = workers[0]
    running("fleet", "revoke", revoked["svid"])

    def replaced() -> bool:
        now = running("fleet", "status")["replicas"][0]["workers"]
        return len(now) == len(workers) and revoked["svid"] not in {one["svid"] for one in now}

    until(replaced)
    assert ask(live, bearer).status_code == 200
    judged = running("fleet", "verify")
    assert (judged["verdict"], judged["unguarded"]) == ("admit", 0), judged
    assert judged["guarded"] > 0
    kinds = [leaf["kind"] for leaf in running("ledger", "show", "--subject", revoked["svid"])["leaves"]]
    assert set(kinds) >= {"fleet.admitted", "fleet.quarantined"}


def test_code_that_raises_exits_or_hangs_costs_its_own_request_only(live: Up, bearer: str) -> None:
    raised, ended = ask(live, bearer, distance_km=401), ask(live, bearer, distance_km=402)

    assert (raised.status_code, raised.json()["error"]["code"]) == (503, "bad_answer")
    assert "raised RuntimeError in scoring.py, line" in raised.json()["error"]["message"]
    assert "only the log" not in raised.text
    assert (ended.status_code, ended.json()["error"]["code"]) == (503, "unavailable")
    hung = httpx.post(
        f"{live.data}/v1/predict/late", json={"instances": [{**ORDER, "distance_km": 403}]},
        headers={"authorization": f"Bearer {bearer}", "taut-deadline-ms": "300"}, timeout=60,
    )  # fmt: skip
    assert hung.status_code == 504
    until(lambda: ask(live, bearer).status_code == 200)  # the other worker, and soon the one that is new
    assert "only the log" not in live.said()


def test_a_dataset_is_scored_by_code(live: Up, running: Installation) -> None:
    scored = running("batch", "late", "--from", "orders", "--to", "scored")

    assert (scored["rows"], scored["rejected_rows"]) == (5981, 0)


def test_a_model_file_that_was_changed_is_refused(shop: Installation, tmp_path: Path) -> None:
    other = shop.copy_to(tmp_path / "shop")
    digest = other("model", "verify", "late@1")["files"]["model.taut"].removeprefix("sha256:")
    (blob,) = [
        path for path in other.home.rglob(f"*{digest[4:]}*") if path.is_file() and "serving" not in path.parts
    ]
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(bytes(data))

    other.refused("model", "verify", "late@1", exit_code=8, code="corrupt")


def test_a_function_whose_state_lies_elsewhere_is_told_so(shop: Installation, tmp_path: Path) -> None:
    other = shop.copy_to(tmp_path / "shop")
    text = (other.folder / "project.py").read_text()
    other.write(
        "scoring.py",
        MODEL + "\n\nFITTED = None\n\n\ndef fitted(columns):\n    return FITTED + 0 * columns['items']\n",
    )
    other.write(
        "project.py", text.replace("    model = Late(", "    import scoring\n\n    scoring.FITTED = 0.3\n    model = scoring.fitted\n    _ = Late(")
    )  # fmt: skip
    other("apply")

    told = other("train", "late", expect=10)

    assert "scoring.py, line" in str(told), told


def test_a_stream_is_answered_by_code_in_workers_of_its_own(shop: Installation, tmp_path: Path) -> None:
    other = shop.copy_to(tmp_path / "shop")
    other("release", "start", "late", "1")
    records = open_sqlite(other.home / "taut.db")
    bus = RecordsBus(records, SystemClock(), SystemRandom())
    rows = [ORDER, {**ORDER, "distance_km": 401}, {**ORDER, "items": 5}]
    bus.publish(
        "orders",
        [
            Event(id=f"o{at}", source="shop", type="order", data=json.dumps(row).encode())
            for at, row in enumerate(rows)
        ],
    )
    records.close()

    counts = other("stream", "run", "late", "--from", "orders", "--to", "answers", "--until-empty")

    assert (counts["received"], counts["answered"], counts["dead"]) == (3, 2, 1)
    (letter,) = other("stream", "dead-letters", "late", "--from", "orders")["dead_letters"]
    assert (letter["id"], letter["code"]) == ("o1", "bad_answer")
    assert "raised RuntimeError in scoring.py" in letter["reason"]


def test_code_is_reproduced_to_the_byte_exported_and_verified(shop: Installation, tmp_path: Path) -> None:
    other = shop.copy_to(tmp_path / "shop")
    run = other("model", "show", "late@1")["run"]

    again = other("run", "reproduce", run)
    out = other("model", "export", "late@1", "--to", str(tmp_path / "out"))

    assert again["same"] is True, again
    assert {"manifest.json", "model.taut"} <= set(out["files"])
    with open_platform(other.home, environ={}) as platform:
        keys = platform.keys.public_keys(purpose="model")
    assert verify_export(tmp_path / "out", keys).signature.form == "code"
