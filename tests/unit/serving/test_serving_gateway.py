"""The core of the gateway, without HTTP: from headers and body to the answer and its record."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import json
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, Unavailable
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.gateway import Gateway, GatewayNode, Reply, compile_snapshot
from taut.serving.predictions import PredictionReader, PredictionRecord
from taut.serving.snapshot import EndpointConfig, GatewaySettings, PreviousVersion, ShadowConfig
from taut.testing.serving import (
    DataPlane,
    columns_model,
    matrix_model,
    matrix_signature,
    now_us,
    open_gateway,
    with_fields,
)
from taut.trust.policy import Attributes
from taut.trust.quota import Limit

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}


class FakeOnline:
    """An online store in memory; `remote` answers on the loop only, as one over the network does."""

    def __init__(self, *, remote: bool = False) -> None:
        self.rows: dict[tuple[str, tuple[Any, ...]], OnlineRow] = {}
        self.local = not remote
        self.failure: Exception | None = None

    async def get(self, feature_set: str, keys: Sequence[tuple[Any, ...]]) -> list[OnlineRow | None]:
        await asyncio.sleep(0)
        return [self._get(feature_set, key) for key in keys]

    def get_now(self, feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        assert self.local, "a loop may not wait for this store"
        return self._get(feature_set, key)

    def _get(self, feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        if self.failure is not None:
            raise self.failure
        return self.rows.get((feature_set, key))


@pytest.fixture
def online() -> FakeOnline:
    return FakeOnline()


@pytest.fixture
def gateway(plane: DataPlane, online: FakeOnline) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom(), online=online) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *endpoints: EndpointConfig, **more: Any) -> None:
    snapshot = plane.snapshot(*endpoints, **more)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(
    gateway: Gateway, path: str, document: object, bearer: str | None, *, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if bearer is not None:
        lines.append((b"authorization", b"Bearer " + bearer.encode()))

    async def run() -> Reply:
        found = gateway.answer(method, path, lines, body)
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    received = {name.decode(): value.decode() for name, value in reply.header_list()}
    return reply.status, received, json.loads(reply.body)


def records(plane: DataPlane) -> list[PredictionRecord]:
    return list(PredictionReader(plane.home / "log" / "predictions").records())


def tensor(*values: float, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "input", "shape": shape, "datatype": "FP32", "data": list(values)}], **more}


def weather_endpoint(
    plane: DataPlane, *, nullable: bool = False, max_age_s: float | None = 60.0
) -> EndpointConfig:
    request = (
        Column("distance", DType.FLOAT),
        Column("carrier", DType.STRING),
        Column("origin", DType.STRING),
    )
    signature = ModelSignature(
        request=request,
        inputs=(
            ModelInput(column=request[0]),
            ModelInput(column=Column("wind", DType.FLOAT, nullable=nullable), feature_set="weather"),
            ModelInput(column=request[1]),
        ),
        lookups=(
            FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",), max_age_s=max_age_s),
        ),
        output="value",
        tensor="columns",
    )
    model = columns_model(["distance", "wind"], "carrier")
    columns = ("rain", "wind")
    served = plane.served(
        model, signature, version="delay@4", feature_columns={"weather": {"mat_1": columns, "mat_2": columns}}
    )
    return EndpointConfig(name="delay", live=served)


def test_an_answer_carries_what_it_came_from_and_was_recorded_before(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint())

    status, headers, answer = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token())

    assert status == 200
    [prediction] = answer["predictions"]
    assert prediction["label"] == 1
    assert prediction["probability"] == pytest.approx(0.777, abs=1e-3)
    assert answer["model_version"] == headers["taut-model-version"] == "delay@1"
    assert answer["release"] == headers["taut-release"] == "rel_delay_1"
    assert answer["request_id"] == headers["taut-request-id"]
    assert (headers["taut-policy-epoch"], headers["taut-cache"]) == ("1", "off")
    assert int(headers["taut-guard-us"]) >= 0
    [record] = records(plane)
    assert (record.request_id, record.principal, record.status) == (answer["request_id"], "ana", 200)
    assert record.requests() == [INSTANCE]
    assert record.answer.probabilities[0][1] == prediction["probability"]
    assert (record.head.version, record.head.release, record.head.epoch) == ("delay@1", "rel_delay_1", 1)


def test_the_three_forms_of_a_request_have_the_same_answer(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    bearer, infer = plane.token(), "/v2/models/delay/versions/1/infer"
    columns = {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in INSTANCE.items()
        ]
    }

    _, _, rows = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, bearer)
    _, _, by_column = ask(gateway, "/v2/models/delay/infer", columns, bearer)
    _, _, matrix = ask(gateway, infer, tensor(1.0, 0.5, -0.25, shape=[1, 3], id="mine"), bearer)

    label, probability = matrix["outputs"]
    assert (matrix["model_name"], matrix["model_version"], matrix["id"]) == ("delay", "1", "mine")
    assert (label["datatype"], label["shape"], label["data"]) == ("INT64", [1], [1])
    assert (probability["datatype"], probability["shape"]) == ("FP64", [1, 2])
    assert by_column["outputs"] == matrix["outputs"]
    assert rows["predictions"][0]["probability"] == probability["data"][1]
    assert [record.requests() for record in records(plane)] == [[INSTANCE]] * 3


def test_outputs_can_be_chosen_and_unknown_ones_are_named(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    path, bearer = "/v2/models/delay/infer", plane.token()

    _, _, only = ask(gateway, path, tensor(1, 2, 3, shape=[1, 3], outputs=[{"name": "label"}]), bearer)
    status, _, wrong = ask(gateway, path, tensor(1, 2, 3, shape=[1, 3], outputs=[{"name": "lable"}]), bearer)

    assert [output["name"] for output in only["outputs"]] == ["label"]
    assert status == 422
    assert "'lable' is unknown: choose from label, probability" in wrong["error"]["message"]


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        (tensor(1, 2, 3, shape=[1, 4]), 422, "saw shape [1, 4] with 3 values"),
        (tensor(1, 2, 3, shape=[3]), 422, "wanted [n, 3]"),
        (tensor(shape=[0, 3]), 422, "n at least 1"),
        (tensor(1, 2, -1, shape=[-1, 3]), 422, "saw shape [-1, 3]"),
        (tensor(1, 2, 1e39, shape=[1, 3]), 422, "column 'x2': saw 1e+39"),
        ({"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, "2", 3]}]}, 422, "row 0, column 'x1': saw '2'"),
        ({"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}, 422, "wanted FP32"),
        ({"inputs": [{"name": "x0", "shape": [1], "datatype": "BYTES", "data": ["1"]}]}, 422, "saw datatype 'BYTES', wanted FP64"),
        ({"inputs": [{"name": "x0", "shape": [2], "datatype": "FP64", "data": [1.0]}]}, 422, "saw shape [2] with 1 values"),
        ({"inputs": [{"name": "x0", "shape": [1], "datatype": "FP64", "data": [1.0]}]}, 422, "tensors x1, x2 are missing"),
        ({"inputs": [{"name": "x9", "shape": [1], "datatype": "FP64", "data": [1.0]}]}, 422, "'x9' is unknown"),
        ({"inputs": []}, 422, "missing"),
        ({"inputs": {}}, 400, "no inference request"),
        (b"{", 400, "no inference request"),
        (b'{"inputs":[],"parameters":{"a":' + b"[" * 50_000, 400, "nested too deeply"),
    ],
)  # fmt: skip
def test_tensors_that_lie_are_refused_with_what_was_seen(
    gateway: Gateway, plane: DataPlane, document: object, status: int, said: str
) -> None:
    install(gateway, plane, plane.endpoint())

    found, headers, answer = ask(gateway, "/v2/models/delay/infer", document, plane.token())

    assert found == status
    assert said in answer["error"]["message"]
    assert answer["error"]["request_id"] == headers["taut-request-id"]


def test_metadata_lists_one_tensor_a_request_column(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, weather_endpoint(plane))

    status, _, found = ask(gateway, "/v2/models/delay", b"", plane.token(), method="GET")

    assert status == 200
    assert (found["name"], found["versions"]) == ("delay", ["4"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["inputs"]] == [
        ("distance", "FP64", [-1]), ("carrier", "BYTES", [-1]), ("origin", "BYTES", [-1]),
    ]  # fmt: skip
    assert found["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize("remote", [False, True])
def test_features_are_looked_up_by_the_keys_of_the_request(
    gateway: Gateway, plane: DataPlane, online: FakeOnline, remote: bool
) -> None:
    online.local = not remote
    now = now_us()
    online.rows["weather", ("EWR",)] = OnlineRow(now - 1_000_000, (0.5, 10.0), "mat_1")
    online.rows["weather", ("JFK",)] = OnlineRow(now - 2_000_000, (0.0, 20), "mat_2")
    install(gateway, plane, weather_endpoint(plane))
    rows = [
        {"distance": 1, "carrier": "AA", "origin": "EWR"},
        {"distance": 2, "carrier": "UA", "origin": "JFK"},
    ]

    status, _, answer = ask(gateway, "/v1/predict/delay", {"instances": rows}, plane.token())

    assert status == 200, answer
    assert [one["value"] for one in answer["predictions"]] == [12.0, 24.0]
    [record] = records(plane)
    assert [[(f.source, f.values) for f in row if f] for row in record.features] == [
        [("mat_1", (0.5, 10.0))], [("mat_2", (0.0, 20))],
    ]  # fmt: skip
    assert record.head.lookups[0].columns == ("rain", "wind")


def test_rows_of_two_materialisations_are_each_read_in_their_own_columns(
    gateway: Gateway, plane: DataPlane, online: FakeOnline
) -> None:
    endpoint = weather_endpoint(plane)
    columns = {"weather": {"mat_1": ("rain", "wind"), "mat_2": ("gusts", "rain", "wind"), "mat_3": ("rain",)}}
    install(
        gateway, plane, msgspec.structs.replace(
            endpoint, live=msgspec.structs.replace(endpoint.live, feature_columns=columns)
        ),
    )  # fmt: skip
    online.rows["weather", ("EWR",)] = OnlineRow(now_us(), (0.5, 10.0), "mat_1")
    online.rows["weather", ("JFK",)] = OnlineRow(now_us(), (99.0, 0.5, 20.0), "mat_2")
    online.rows["weather", ("LGA",)] = OnlineRow(now_us(), (0.5,), "mat_3")
    online.rows["weather", ("BOS",)] = OnlineRow(now_us(), (30.0, 0.5, 1.0), "mat_9")

    def wind_at(origin: str) -> tuple[int, Any]:
        row = {"distance": 0, "carrier": "XX", "origin": origin}
        status, _, answer = ask(gateway, "/v1/predict/delay", {"instances": [row]}, plane.token())
        return status, answer["predictions"][0]["value"] if status == 200 else answer["error"]["code"]

    assert wind_at("EWR") == (200, 10.0)
    assert wind_at("JFK") == (200, 20.0)
    assert wind_at("LGA") == (503, "unavailable")  # has no wind
    assert wind_at("BOS") == (503, "unavailable")  # of a materialisation that the snapshot does not know


@pytest.mark.parametrize("age_s", [None, 61.0])
def test_a_missing_or_stale_feature_is_named_with_its_row(
    gateway: Gateway, plane: DataPlane, online: FakeOnline, age_s: float | None
) -> None:
    if age_s is not None:
        online.rows["weather", ("EWR",)] = OnlineRow(now_us() - int(age_s * 1e6), (0.5, 10.0), "mat_1")
    install(gateway, plane, weather_endpoint(plane))
    row = {"distance": 1, "carrier": "AA", "origin": "EWR"}

    status, _, answer = ask(gateway, "/v1/predict/delay", {"instances": [row]}, plane.token())

    assert status == 422
    assert "row 0, feature 'wind' of 'weather': no row for this entity" in answer["error"]["message"]


def test_a_store_that_fails_is_a_503_and_makes_the_gateway_unready(
    gateway: Gateway, plane: DataPlane, online: FakeOnline
) -> None:
    install(gateway, plane, weather_endpoint(plane))
    row = {"distance": 1, "carrier": "AA", "origin": "EWR"}

    for failure in (Unavailable("the store does not answer"), Corrupt("the row is damaged")):
        online.failure = failure
        status, _, answer = ask(gateway, "/v1/predict/delay", {"instances": [row]}, plane.token())
        ready, _, why = ask(gateway, "/v2/health/ready", b"", None, method="GET")

        assert status == ready == 503
        assert failure.message in answer["error"]["message"]
        assert why["reasons"] == [f"online features: {failure.message}"]


def test_a_batch_beyond_the_inline_budget_runs_off_the_loop_with_the_same_answers(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint(), settings=GatewaySettings(inline_us=0.0))
    rows = [{"x0": index / 10, "x1": 0.0, "x2": 0.0} for index in range(50)]

    status, _, answer = ask(gateway, "/v1/predict/delay", {"instances": rows}, plane.token())

    assert status == 200
    assert len(answer["predictions"]) == 50
    assert [one["label"] for one in answer["predictions"]] == [0] + [1] * 49


def test_power_safe_answers_wait_for_the_disk_and_off_leaves_no_record(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint(audit="power-safe"), plane.endpoint(name="light", audit="off"))

    safe, _, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token())
    light, _, _ = ask(gateway, "/v1/predict/light", {"instances": [INSTANCE]}, plane.token())

    assert (safe, light) == (200, 200)
    assert [record.head.endpoint for record in records(plane)] == ["delay"]


def test_a_quota_is_for_each_principal_and_says_when_to_come_back(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint(quota=Limit(rate_per_s=0.01, burst=2)))

    mine = [ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token()) for _ in range(3)]
    other, _, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token("ben", jti="t2"))

    assert [status for status, _, _ in mine] == [200, 200, 429]
    assert 10 <= int(mine[2][1]["retry-after"]) <= 100
    assert mine[2][2]["error"]["code"] == "exhausted"
    assert other == 200


def test_who_took_more_of_the_models_time_than_he_may_is_refused_until_time_has_paid(
    gateway: Gateway, plane: DataPlane
) -> None:
    nothing = Limit(rate_per_s=1e-6, burst=1e-9, kind="model_ms")
    install(gateway, plane, plane.endpoint(model_time=nothing))

    mine = [ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token()) for _ in range(2)]
    wrong, _, _ = ask(gateway, "/v1/predict/delay", {"instances": [{}]}, plane.token("ben", jti="t2"))
    other, _, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token("ben", jti="t2"))

    assert [status for status, _, _ in mine] == [200, 429]
    assert (
        "the quota of 1e-06 ms of model time a second on 'delay' is used up" in mine[1][2]["error"]["message"]
    )
    assert int(mine[1][1]["retry-after"]) >= 1
    assert (wrong, other) == (422, 200)  # what reached no model cost none of its time


def test_a_new_epoch_with_the_same_quota_does_not_refill_it(gateway: Gateway, plane: DataPlane) -> None:
    endpoint = plane.endpoint(quota=Limit(rate_per_s=0.01, burst=1))
    install(gateway, plane, endpoint)
    first, _, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token())

    install(gateway, plane, endpoint)
    second, headers, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token())

    assert (first, second) == (200, 429)
    assert headers["taut-policy-epoch"] == "2"


def test_denials_are_recorded_up_to_the_quota_and_no_further(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint(quota=Limit(rate_per_s=0.01, burst=3)))
    bearer = plane.token("eve", roles=("auditor",))

    found = [ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, bearer) for _ in range(6)]

    assert {status for status, _, _ in found} == {403}
    assert "eve may not predict on endpoint:delay" in found[0][2]["error"]["message"]
    assert [record.status for record in records(plane)] == [403, 403, 403]


def test_a_deadline_that_passed_is_a_504(plane: DataPlane) -> None:
    counter = itertools.count(step=10_000_000)  # ten milliseconds pass at each look
    with open_gateway(plane.home, SystemRandom(), counter_ns=lambda: next(counter)) as gateway:
        install(gateway, plane, plane.endpoint())
        path, body, bearer = "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token()

        late, _, answer = ask(gateway, path, body, bearer, taut_deadline_ms="5")
        in_time, _, _ = ask(gateway, path, body, bearer, taut_deadline_ms="5000")

    assert (late, answer["error"]["code"], in_time) == (504, "deadline_exceeded", 200)
    assert [record.status for record in records(plane)] == [504, 200]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("taut_deadline_ms", "-1"),
        ("taut_deadline_ms", "soon"),
        ("taut_priority", "10"),
        ("taut_subject", "a\x7f"),
    ],
)
def test_a_header_that_makes_no_sense_is_named(
    gateway: Gateway, plane: DataPlane, header: str, value: str
) -> None:
    install(gateway, plane, plane.endpoint())

    wrong, _, answer = ask(
        gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token(), **{header: value}
    )
    right, _, _ = ask(
        gateway,
        "/v1/predict/delay",
        {"instances": [INSTANCE]},
        plane.token(),
        taut_priority="9",
        taut_subject="p-1",
    )

    assert (wrong, right) == (400, 200)
    assert header.replace("_", "-") in answer["error"]["message"]
    assert records(plane)[-1].subject == "p-1"


def test_a_model_that_answers_nonsense_gives_way_to_its_fallback_or_a_503(
    gateway: Gateway, plane: DataPlane
) -> None:
    nan = plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3), version="delay@2")
    good = plane.served(matrix_model(3), matrix_signature(3), version="delay@1")
    other = plane.served(matrix_model(4), matrix_signature(4), version="delay@1")
    body = {"instances": [INSTANCE]}

    install(gateway, plane, EndpointConfig(name="delay", live=nan, fallbacks=(PreviousVersion(model=good),)))
    status, headers, answer = ask(gateway, "/v1/predict/delay", body, plane.token())
    install(gateway, plane, EndpointConfig(name="delay", live=nan, fallbacks=(PreviousVersion(model=other),)))
    alone, _, refused = ask(gateway, "/v1/predict/delay", body, plane.token())

    assert (status, headers["taut-fallback"], answer["model_version"]) == (200, "delay@1", "delay@1")
    assert records(plane)[0].fallback == "delay@1"
    assert (alone, refused["error"]["code"]) == (503, "bad_answer")


def test_readiness_says_each_reason(plane: DataPlane) -> None:
    clock = [now_us()]
    with open_gateway(plane.home, SystemRandom(), clock_us=lambda: clock[0]) as gateway:
        bare, _, none = ask(gateway, "/v2/health/ready", b"", None, method="GET")
        install(gateway, plane, plane.endpoint(max_age_s=30.0), max_age_s=100.0)
        bearer = plane.token(ttl_s=1000)
        fresh, _, _ = ask(gateway, "/v2/models/delay/ready", b"", bearer, method="GET")
        clock[0] += 31_000_000
        high_risk, _, why = ask(gateway, "/v2/models/delay/ready", b"", bearer, method="GET")
        shed, headers, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, bearer)
        clock[0] += 70_000_000
        stale, _, old = ask(gateway, "/v2/health/ready", b"", None, method="GET")
        live, _, _ = ask(gateway, "/v2/health/live", b"", None, method="GET")

    assert (bare, none["reasons"]) == (503, ["no snapshot: control has not issued one yet"])
    assert (fresh, high_risk, shed, stale, live) == (200, 503, 503, 503, 200)
    assert "older than it may be served" in why["reasons"][0]
    assert "retry-after" in headers
    assert "epoch 1 is older than it may be served" in old["reasons"][0]


def test_revoked_disabled_and_expired_bearers_end_with_the_epoch_that_says_so(
    gateway: Gateway, plane: DataPlane
) -> None:
    endpoint, body = plane.endpoint(), {"instances": [INSTANCE]}
    ana, ben = plane.token("ana", jti="a"), plane.token("ben", jti="b")
    install(gateway, plane, endpoint)
    before = [ask(gateway, "/v1/predict/delay", body, bearer)[0] for bearer in (ana, ben, plane.api_key)]

    install(
        gateway,
        plane,
        endpoint,
        identity=with_fields(plane.identity(revoked=("a",), disabled=("ben",)), api_keys=()),
    )
    after = [ask(gateway, "/v1/predict/delay", body, bearer)[0] for bearer in (ana, ben, plane.api_key)]

    assert before == [200, 200, 200]
    assert after == [401, 401, 401]


def test_a_policy_of_the_project_is_heard_at_its_epoch(gateway: Gateway, plane: DataPlane) -> None:
    endpoint, body = plane.endpoint(), {"instances": [INSTANCE]}
    install(gateway, plane, endpoint)
    allowed, _, _ = ask(gateway, "/v1/predict/delay", body, plane.token())

    forbid = '@id("closed") forbid(principal, action == Action::"predict", resource) when { resource.name == "delay" };'
    install(gateway, plane, endpoint, policy=forbid)
    denied, _, why = ask(gateway, "/v1/predict/delay", body, plane.token())

    assert (allowed, denied) == (200, 403)
    assert "forbidden by closed" in why["error"]["message"]


def test_a_policy_may_ask_at_a_gateway_what_is_known_of_an_endpoint(
    gateway: Gateway, plane: DataPlane
) -> None:
    endpoint, body = plane.endpoint(), {"instances": [INSTANCE]}
    policy = (
        'forbid(principal, action == Action::"predict", resource)\n'
        'when { resource has classification && resource.classification == "restricted" };'
    )
    answers = []
    for known in ("internal", "restricted", "internal"):
        resources = {"endpoint:delay": Attributes(classification=known)}
        install(gateway, plane, endpoint, policy=policy, resources=resources)
        answers.append(ask(gateway, "/v1/predict/delay", body, plane.token())[0])

    assert answers == [200, 403, 200]  # what was decided before is not answered under other facts


def test_an_old_model_is_freed_and_a_kept_one_is_not_loaded_again(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    assert gateway.active is not None
    kept = gateway.active.endpoints["delay"].live.model
    install(gateway, plane, plane.endpoint())
    assert gateway.active.endpoints["delay"].live.model is kept
    old = weakref.ref(kept)
    del kept

    install(
        gateway,
        plane,
        EndpointConfig(
            name="delay", live=plane.served(matrix_model(3, bias=1.0), matrix_signature(3), version="delay@2")
        ),
    )
    gc.collect()

    assert old() is None


def test_a_node_refuses_what_it_cannot_serve_and_serves_on(gateway: Gateway, plane: DataPlane) -> None:
    node = GatewayNode(
        gateway,
        home=plane.home,
        name="gateway-0",
        store=plane.store,
        trust=plane.trust,
        random=SystemRandom(),
    )
    good = plane.sign(plane.snapshot(plane.endpoint())).to_json()
    broken = plane.endpoint(width=4)
    damaged = plane.home / broken.live.path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    bad_artifact = plane.sign(plane.snapshot(broken)).to_json()
    bad_policy = plane.sign(
        with_fields(plane.snapshot(plane.endpoint()), policy_digest="sha256:" + "0" * 64)
    ).to_json()
    newer = plane.sign(plane.snapshot(plane.endpoint())).to_json()

    async def run() -> list[Any]:
        return [await node.apply(data) for data in (good, bad_artifact, bad_policy, b"{}", newer, good)]

    acks = asyncio.run(run())
    status, headers, _ = ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, plane.token())

    assert [ack.applied for ack in acks] == [True, False, False, False, True, False]
    assert [ack.serving for ack in acks] == [1, 1, 1, 1, 4, 4]
    assert "restore the artifact" in acks[1].reason
    assert "policy's digest" in acks[2].reason
    assert "epoch 1, this gateway is at 4" in acks[5].reason
    assert (status, headers["taut-policy-epoch"]) == (200, "4")


def test_a_gateway_starts_from_the_last_that_worked_when_the_newest_on_disk_does_not(
    gateway: Gateway, plane: DataPlane
) -> None:
    plane.store.save_applied(plane.sign(plane.snapshot(plane.endpoint())).to_json())
    broken = plane.endpoint(width=4)
    (plane.home / broken.live.path).unlink()
    plane.issue(broken)
    node = GatewayNode(
        gateway,
        home=plane.home,
        name="gateway-0",
        store=plane.store,
        trust=plane.trust,
        random=SystemRandom(),
    )

    asyncio.run(node.start_from_disk())

    assert gateway.active is not None
    assert gateway.active.epoch == 1
    assert gateway.reasons() == []


def test_a_shadow_looks_its_features_up_itself(
    gateway: Gateway, plane: DataPlane, online: FakeOnline
) -> None:
    online.rows["weather", ("EWR",)] = OnlineRow(now_us(), (0.5, 10.0), "mat_1")
    live = weather_endpoint(plane)
    shadow = msgspec.structs.replace(live.live, version="weather@2", release="rel_2")
    install(
        gateway,
        plane,
        msgspec.structs.replace(live, shadow=ShadowConfig(model=shadow, share=1.0), audit="crash-safe"),
    )
    body = json.dumps({"instances": [{"distance": 1, "carrier": "AA", "origin": "EWR"}]}).encode()

    async def run() -> int:
        bearer = [(b"authorization", b"Bearer " + plane.token().encode())]
        found = gateway.answer("POST", "/v1/predict/delay", bearer, body)
        reply = await found if inspect.isawaitable(found) else found
        await gateway.mirror.idle()
        online.failure = Unavailable("the store is away")
        found = gateway.answer("POST", "/v1/predict/delay", bearer, body)
        lost = await found if inspect.isawaitable(found) else found
        await gateway.mirror.idle()
        await gateway.mirror.close()
        return reply.status * 1000 + lost.status

    assert asyncio.run(run()) == 200503
    (told,) = gateway.mirror.reading()
    assert (told.answered, told.failed) == (1, (0, 0))  # a store that is away says nothing of either version


def test_slots_are_bounded_and_the_last_are_for_high_priorities(
    gateway: Gateway, plane: DataPlane, online: FakeOnline
) -> None:
    online.local = False
    online.rows["weather", ("EWR",)] = OnlineRow(now_us(), (0.5, 10.0), "mat_1")
    install(gateway, plane, weather_endpoint(plane), settings=GatewaySettings(max_in_flight=10))
    body = json.dumps({"instances": [{"distance": 1, "carrier": "AA", "origin": "EWR"}]}).encode()
    bearer = b"Bearer " + plane.token().encode()

    async def run(priority: bytes) -> list[int]:
        headers = [(b"authorization", bearer), (b"taut-priority", priority)]
        waiting = [gateway.answer("POST", "/v1/predict/delay", headers, body) for _ in range(15)]
        replies = await asyncio.gather(*[one for one in waiting if inspect.isawaitable(one)])
        return [reply.status for reply in replies]

    low, high = asyncio.run(run(b"1")), asyncio.run(run(b"7"))

    assert (low.count(200), low.count(503)) == (8, 7)
    assert (high.count(200), high.count(503)) == (10, 5)


def test_paths_methods_and_unknown_endpoints_are_told_apart(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    bearer = plane.token()

    assert ask(gateway, "/v1/predict/dely", b"", bearer)[2]["error"]["message"].endswith(
        "did you mean 'delay'?"
    )
    assert (
        ask(gateway, "/v1/predict/dely", b"", plane.token("eve", roles=("auditor",)))[2]["error"][
            "message"
        ].count("delay")
        == 0
    )
    assert ask(gateway, "/v1/predict/dely", b"", None)[0] == 401
    assert ask(gateway, "/v2/models/delay/versions/9/infer", b"", bearer)[0] == 404
    assert ask(gateway, "/v1/feedback", b"", bearer)[0] == 400
    assert ask(gateway, "/v1/predict/delay", b"", bearer, method="GET")[0] == 405
    assert ask(gateway, "/v2/health/live", b"", None, method="POST")[0] == 405
    assert ask(gateway, "/v2", b"", None, method="GET")[2]["name"] == "taut"
    assert (
        ask(gateway, "/v1/predict/delay", {"instances": [INSTANCE]}, bearer, content_encoding="gzip")[0]
        == 400
    )
