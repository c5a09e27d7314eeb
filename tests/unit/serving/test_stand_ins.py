"""What answers when the live version cannot: each kind, in the declared order, marked, recorded, never in silence."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import DeadlineExceeded, Unavailable
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.errors import BadAnswer, Shed, WorkerLost
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.predictions import PredictionReader, PredictionRecord
from taut.serving.snapshot import (
    CacheConfig,
    DefaultAnswer,
    EndpointConfig,
    OtherModel,
    PreviousVersion,
    ServedModel,
    StaleAnswer,
    StandIn,
)
from taut.serving.workers import Rota, WorkerModel
from taut.testing.serving import (
    DataPlane,
    columns_model,
    matrix_model,
    matrix_signature,
    now_us,
    open_gateway,
    with_fields,
)
from taut.trust.quota import Limit

ROW = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
BODY = {"instances": [ROW]}
FLIGHT = {"instances": [{"distance": 1.0, "carrier": "AA", "origin": "EWR"}]}
DEFAULT = DefaultAnswer(probabilities=((0, 0.75), (1, 0.25)))


class Clock:
    """Both clocks of a gateway, moved by hand."""

    def __init__(self) -> None:
        self.start_us = now_us()
        self.passed_s = 0.0

    def now_us(self) -> int:
        return self.start_us + int(self.passed_s * 1e6)

    def counter_ns(self) -> int:
        return int(self.passed_s * 1e9)


class Store:
    """An online store over the network, as far as a gateway can tell."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], OnlineRow] = {}
        self.down = False
        self.local = False
        self.asked = 0

    async def get(self, _feature_set: str, keys: Sequence[tuple[Any, ...]]) -> list[OnlineRow | None]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("the store is away")
        return [self.rows.get(key) for key in keys]

    def get_now(self, _feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        assert self.local, "a loop may not wait for this store"
        if self.down:
            raise Unavailable("the store is away")
        return self.rows.get(key)


class Lane:
    """Workers of a model, played: `play` gives the tensor of a feed, or raises."""

    def __init__(self, name: str, play: Callable[[int], Awaitable[float]]) -> None:
        self.name = name
        self.loaded = SimpleNamespace(inputs={"input": ("tensor(float)", 2)}, cost=None)
        self.alive, self.idle, self.asked, self.rota = 1, 1, 0, Rota()
        self.deadlines_s: list[float] = []
        self._play = play

    async def run(self, _feed: Any, rows: int, *, within_s: float, **_more: Any) -> Any:
        self.asked += 1
        self.deadlines_s.append(within_s)
        share = await self._play(self.asked)
        return np.array([[1 - share, share]] * rows, dtype=np.float32)


class Fleet:
    """Gives each version the lane that the test made for it."""

    def __init__(self, **lanes: Lane) -> None:
        self.lanes = lanes

    def open(self, _key: str, name: str, _model: bytes, order: Any, *_: Any, **__: Any) -> WorkerModel:
        return WorkerModel(cast(Any, self.lanes[name.replace("@", "_")]), order.signature)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(plane: DataPlane, store: Store, clock: Clock) -> Iterator[Gateway]:
    with open_gateway(
        plane.home, SystemRandom(), online=store, clock_us=clock.now_us, counter_ns=clock.counter_ns
    ) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *endpoints: EndpointConfig, **more: Any) -> None:
    fleet = more.pop("fleet", None)
    snapshot = plane.snapshot(*endpoints, max_age_s=86_400.0, **more)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active, fleet=fleet))


async def answer(
    gateway: Gateway, document: Any, bearer: str, *, path: str = "/v1/predict/delay", method: str = "POST", **more: str
) -> tuple[int, dict[str, str], Any]:  # fmt: skip
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    lines.append((b"authorization", b"Bearer " + bearer.encode()))
    found = gateway.answer(method, path, lines, json.dumps(document).encode())
    reply: Reply = await found if inspect.isawaitable(found) else found
    said = {name.decode(): value.decode() for name, value in reply.header_list()}
    return reply.status, said, json.loads(reply.body)


def ask(gateway: Gateway, document: Any, bearer: str, **more: str) -> tuple[int, dict[str, str], Any]:
    return asyncio.run(answer(gateway, document, bearer, **more))


def readiness(gateway: Gateway, bearer: str, name: str = "delay") -> Any:
    return ask(gateway, {}, bearer, path=f"/v2/models/{name}/ready", method="GET")[2]


def records(plane: DataPlane) -> list[PredictionRecord]:
    return list(PredictionReader(plane.home / "log" / "predictions").records())


def broken(plane: DataPlane, *, version: str = "delay@2") -> ServedModel:
    return plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3), version=version)


def sound(plane: DataPlane, *, version: str = "delay@1", bias: float = 0.0) -> ServedModel:
    return plane.served(matrix_model(3, bias=bias), matrix_signature(3), version=version)


def weather(plane: DataPlane, **more: Any) -> EndpointConfig:
    """An endpoint with a feature of its own, and beside it a model that needs none."""
    request = (
        Column("distance", DType.FLOAT),
        Column("carrier", DType.STRING),
        Column("origin", DType.STRING),
    )
    live = ModelSignature(
        request=request,
        inputs=(
            ModelInput(column=request[0]),
            ModelInput(column=Column("wind", DType.FLOAT), feature_set="weather"),
            ModelInput(column=request[1]),
        ),
        lookups=(
            FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",), max_age_s=60.0),
        ),
        output="value",
        tensor="columns",
    )
    served = plane.served(
        columns_model(["distance", "wind"], "carrier"), live, version="delay@4",
        feature_columns={"weather": {"mat_1": ("wind",)}},
    )  # fmt: skip
    return EndpointConfig(name="delay", live=served, **more)


def simple(plane: DataPlane) -> ServedModel:
    """A model of the same question with fewer columns and no features."""
    request = (Column("carrier", DType.STRING), Column("distance", DType.FLOAT))
    signature = ModelSignature(
        request=request,
        inputs=(ModelInput(column=request[1]), ModelInput(column=request[0])),
        output="value",
        tensor="columns",
    )
    return plane.served(columns_model(["distance"], "carrier"), signature, version="simple@7")


def test_stand_ins_are_tried_in_their_order_and_each_says_who_it_is(
    gateway: Gateway, plane: DataPlane
) -> None:
    steps = (
        PreviousVersion(model=broken(plane, version="delay@1")),
        OtherModel(model=sound(plane, version="simple@3", bias=2.0)),
        DEFAULT,
    )
    install(gateway, plane, EndpointConfig(name="delay", live=broken(plane), fallbacks=steps))

    status, said, found = ask(gateway, BODY, plane.token())

    assert (status, said["taut-fallback"], said["taut-model-version"]) == (200, "simple@3", "simple@3")
    assert (found["model_version"], found["release"]) == ("simple@3", "rel_simple_3")
    [record] = records(plane)
    assert (record.fallback, record.version, record.head.version) == ("simple@3", "simple@3", "delay@2")


@pytest.mark.parametrize("path", ["/v1/predict/delay", "/v2/models/delay/infer"])
def test_the_default_answer_is_shown_as_such_and_as_nobody_elses(
    gateway: Gateway, plane: DataPlane, path: str
) -> None:
    install(gateway, plane, EndpointConfig(name="delay", live=broken(plane), fallbacks=(DEFAULT,)))
    tensor = {
        "inputs": [{"name": "input", "shape": [2, 3], "datatype": "FP32", "data": [1.0, 2, 3, 4, 5, 6]}]
    }

    status, said, found = ask(
        gateway, tensor if "v2" in path else {"instances": [ROW, ROW]}, plane.token(), path=path
    )

    assert (status, said["taut-fallback"], said["taut-model-version"]) == (200, "default", "default")
    if "v2" in path:
        assert found["model_version"] == "default"
        assert [one["data"] for one in found["outputs"]] == [[0, 0], [0.75, 0.25, 0.75, 0.25]]
    else:
        assert found["predictions"] == [{"label": 0, "probability": 0.25}] * 2
    [record] = records(plane)
    assert (record.fallback, record.version, record.status) == ("default", "", 200)


def test_without_a_stand_in_the_failure_is_the_answer(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, EndpointConfig(name="delay", live=broken(plane)))

    status, said, found = ask(gateway, BODY, plane.token())

    assert (status, found["error"]["code"]) == (503, "bad_answer")
    assert "taut-fallback" not in said


def test_when_every_stand_in_fails_the_first_failure_is_the_answer(
    gateway: Gateway, plane: DataPlane
) -> None:
    steps = (PreviousVersion(model=broken(plane, version="delay@1")), StaleAnswer(max_stale_s=60.0))
    install(gateway, plane, EndpointConfig(name="delay", live=broken(plane), fallbacks=steps))

    status, _, found = ask(gateway, BODY, plane.token())

    assert (status, found["error"]["code"]) == (503, "bad_answer")


def test_nothing_stands_in_for_a_request_that_is_wrong(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), fallbacks=(DEFAULT,)))

    assert ask(gateway, {"instances": [{**ROW, "x0": 1e300}]}, plane.token())[0] == 422
    assert ask(gateway, {"instances": [{"x0": 1.0}]}, plane.token())[0] == 422


def test_a_stand_in_that_does_not_fit_or_cannot_be_loaded_is_named_and_keeps_nobody_from_serving(
    gateway: Gateway, plane: DataPlane
) -> None:
    wide = plane.served(matrix_model(4), matrix_signature(4), version="wide@1")
    words = with_fields(matrix_signature(3), classes=("late", "on time"))
    others = plane.served(matrix_model(3), words, version="words@1")
    damaged = plane.served(matrix_model(3, bias=9.0), matrix_signature(3), version="damaged@1")
    (plane.home / damaged.path).write_bytes(b"damaged")
    steps: tuple[StandIn, ...] = (
        *(OtherModel(model=one) for one in (wide, others, damaged)),
        DefaultAnswer(value=1.0),
        DefaultAnswer(probabilities=((False, 0.5), (True, 0.5))),
    )
    install(gateway, plane, EndpointConfig(name="delay", live=broken(plane), fallbacks=steps))

    status, _, _ = ask(gateway, BODY, plane.token())
    found = readiness(gateway, plane.token())
    whole = ask(gateway, {}, plane.token(), path="/v2/health/ready", method="GET")[2]

    assert status == 503
    assert len(found["degraded"]) == 5
    assert [said for said in found["degraded"] if "wide@1 cannot stand in: it needs 'x3'" in said]
    assert [said for said in found["degraded"] if "words@1 cannot stand in: it gives other classes" in said]
    assert [said for said in found["degraded"] if "damaged@1 cannot stand in: its artifact" in said]
    assert whole == {"ready": True, "degraded": found["degraded"]}


def test_lost_features_are_stood_in_for_only_where_that_was_declared(
    gateway: Gateway, plane: DataPlane, store: Store
) -> None:
    store.down = True
    steps = (PreviousVersion(model=weather(plane).live), OtherModel(model=simple(plane)))
    install(gateway, plane, weather(plane, fallbacks=steps))
    undeclared, _, refused = ask(gateway, FLIGHT, plane.token())
    install(gateway, plane, weather(plane, fallbacks=steps, fallback_when=("features",)))
    declared, said, found = ask(gateway, FLIGHT, plane.token())

    assert (undeclared, refused["error"]["code"]) == (503, "unavailable")
    assert (declared, said["taut-fallback"]) == (200, "simple@7")
    assert found["predictions"] == [{"value": 2.0}]


def test_a_feature_without_a_value_is_stood_in_for_where_that_was_declared(
    gateway: Gateway, plane: DataPlane
) -> None:
    steps = (OtherModel(model=simple(plane)),)
    install(gateway, plane, weather(plane, fallbacks=steps))
    undeclared, _, refused = ask(gateway, FLIGHT, plane.token())
    install(gateway, plane, weather(plane, fallbacks=steps, fallback_when=("features",)))

    assert (undeclared, refused["error"]["code"]) == (422, "invalid_input")
    assert ask(gateway, FLIGHT, plane.token())[1]["taut-fallback"] == "simple@7"


def test_the_last_answer_stands_in_within_its_bound_and_while_its_features_may_be_used(
    gateway: Gateway, plane: DataPlane, store: Store, clock: Clock
) -> None:
    store.rows["EWR",] = OnlineRow(clock.now_us() - 10_000_000, (10.0,), "mat_1")
    config = weather(plane, fallbacks=(StaleAnswer(max_stale_s=300.0),), fallback_when=("features",))
    install(gateway, plane, config)
    bearer = plane.token(ttl_s=3600)

    fresh, said, first = ask(gateway, FLIGHT, bearer)
    store.down = True
    clock.passed_s = 40.0
    stale, marked, again = ask(gateway, FLIGHT, bearer)
    stranger = ask(gateway, FLIGHT, plane.token(ttl_s=3600, roles=("auditor", "predictor")))[0]
    other_row = ask(gateway, {"instances": [{**FLIGHT["instances"][0], "distance": 2.0}]}, bearer)[0]
    clock.passed_s = 51.0  # the feature is a minute old now
    late = ask(gateway, FLIGHT, bearer)[0]

    assert (fresh, said["taut-cache"]) == (200, "off")
    assert (stale, marked["taut-fallback"], marked["taut-cache"], marked["age"]) == (
        200,
        "cached",
        "hit",
        "40",
    )
    assert marked["taut-model-version"] == "delay@4"
    assert again["predictions"] == first["predictions"] == [{"value": 12.0}]
    assert (stranger, other_row, late) == (503, 503, 503)
    record = next(one for one in records(plane) if one.fallback)
    assert (record.fallback, record.version, record.age_us) == ("cached", "delay@4", 40_000_000)
    assert record.features == ()


# the cache on the short way


def test_a_hit_is_authenticated_authorised_counted_and_recorded(gateway: Gateway, plane: DataPlane) -> None:
    config = EndpointConfig(
        name="delay",
        live=sound(plane),
        cache=CacheConfig(ttl_s=60.0),
        quota=Limit(rate_per_s=1e-6, burst=3.0),
    )
    install(gateway, plane, config)

    answers = [ask(gateway, BODY, plane.token()) for _ in range(4)]
    stranger, _, _ = ask(gateway, BODY, plane.token("eve", roles=("auditor",)))
    forged, _, _ = ask(gateway, BODY, "nonsense")

    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    assert [said.get("taut-cache") for _, said, _ in answers[:3]] == ["miss", "hit", "hit"]
    assert (stranger, forged) == (403, 401)
    assert answers[0][2]["predictions"] == answers[1][2]["predictions"]
    found = [one for one in records(plane) if one.status == 200]
    assert [one.request_id for one in found] == [one["request_id"] for _, _, one in answers[:3]]
    assert [one.age_us > 0 for one in found] == [False, True, True]
    assert [one.answer for one in found] == [found[0].answer] * 3


def test_all_forms_of_an_answer_come_from_one_entry(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, weather(plane, cache=CacheConfig(ttl_s=60.0)), plane.endpoint(name="other"))
    names = {"x0": 1.0, "x1": 2.0, "x2": 3.0}
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), cache=CacheConfig(ttl_s=60.0)))
    columns = {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in names.items()
        ]
    }
    path, raw = "/v2/models/delay/infer", {"parameters": {"binary_data_output": True}}

    rows = ask(gateway, {"instances": [names]}, plane.token())
    tensors = ask(gateway, columns, plane.token(), path=path)

    assert (rows[1]["taut-cache"], tensors[1]["taut-cache"]) == ("miss", "hit")
    assert rows[2]["predictions"][0]["probability"] == tensors[2]["outputs"][1]["data"][1]
    body = json.dumps({**columns, **raw}).encode()
    reply = cast(
        Reply, gateway.answer("POST", path, [(b"authorization", b"Bearer " + plane.token().encode())], body)
    )
    assert b"taut-cache: hit" in reply.head
    assert b"inference-header-content-length" in reply.head


def test_large_batches_and_endpoints_without_a_cache_say_off(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), cache=CacheConfig(ttl_s=60.0)))
    many = {"instances": [ROW] * 257}

    large = [ask(gateway, many, plane.token())[1]["taut-cache"] for _ in range(2)]
    install(gateway, plane, plane.endpoint())

    assert large == ["off", "off"]
    assert ask(gateway, BODY, plane.token())[1]["taut-cache"] == "off"


def test_a_release_of_the_same_version_keeps_its_answers_and_shows_the_new_release(
    gateway: Gateway, plane: DataPlane
) -> None:
    config = EndpointConfig(name="delay", live=sound(plane), cache=CacheConfig(ttl_s=60.0))
    install(gateway, plane, config)
    ask(gateway, BODY, plane.token())

    install(gateway, plane, with_fields(config, live=with_fields(config.live, release="rel_again")))
    _, said, found = ask(gateway, BODY, plane.token())

    assert (said["taut-cache"], said["taut-release"], found["release"]) == ("hit", "rel_again", "rel_again")


def test_answers_are_kept_for_no_longer_than_a_feature_may_be(
    gateway: Gateway, plane: DataPlane, store: Store, clock: Clock
) -> None:
    store.rows["EWR",] = OnlineRow(clock.now_us(), (10.0,), "mat_1")
    install(gateway, plane, weather(plane, cache=CacheConfig(ttl_s=3600.0)))
    bearer = plane.token(ttl_s=7200)

    first = ask(gateway, FLIGHT, bearer)[1]["taut-cache"]
    clock.passed_s = 59.0
    second = ask(gateway, FLIGHT, bearer)[1]["taut-cache"]
    clock.passed_s = 61.0
    late = ask(gateway, FLIGHT, bearer)

    assert (first, second) == ("miss", "hit")
    assert (late[0], late[2]["error"]["code"]) == (422, "invalid_input")


# breakers


def test_a_version_that_keeps_failing_is_left_alone_and_tried_again_by_one_request(
    gateway: Gateway, plane: DataPlane, clock: Clock
) -> None:
    big = {
        "instances": [{"x0": 3e38, "x1": 3e38, "x2": 0.0}]
    }  # beyond FP32 when summed: this model fails on it
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), fallbacks=(DEFAULT,)))
    bearer = plane.token(ttl_s=3600)

    failed = [ask(gateway, big, bearer)[1]["taut-fallback"] for _ in range(20)]
    opened = readiness(gateway, bearer)
    alone = ask(gateway, BODY, bearer)[1].get("taut-fallback")
    clock.passed_s = 1.5
    probe = ask(gateway, BODY, bearer)[1].get("taut-fallback")
    closed = readiness(gateway, bearer)

    assert failed == ["default"] * 20
    [breaker] = opened["breakers"]
    assert (breaker["of"], breaker["state"]) == ("delay@1", "open")
    assert opened["ready"]
    assert "delay@1 failed too often of late" in opened["degraded"][0]
    assert (alone, probe) == ("default", None)
    assert ([one["state"] for one in closed["breakers"]], closed["degraded"]) == (["closed"], [])


def test_a_breaker_outlives_an_epoch_and_not_its_version(gateway: Gateway, plane: DataPlane) -> None:
    config = EndpointConfig(name="delay", live=broken(plane), fallbacks=(DEFAULT,))
    install(gateway, plane, config)
    for _ in range(20):
        ask(gateway, BODY, plane.token())

    install(gateway, plane, config)
    kept = readiness(gateway, plane.token())["breakers"][0]["state"]
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), fallbacks=(DEFAULT,)))

    assert kept == "open"
    assert readiness(gateway, plane.token())["breakers"][0]["state"] == "closed"


def test_a_model_in_this_process_with_nothing_to_stand_in_has_no_breaker(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, EndpointConfig(name="delay", live=sound(plane), cache=CacheConfig(ttl_s=60.0)))

    assert readiness(gateway, plane.token())["breakers"] == []


def test_a_store_that_keeps_failing_is_asked_no_more_until_one_request_has_tried(
    gateway: Gateway, plane: DataPlane, store: Store, clock: Clock
) -> None:
    store.down = True
    store.rows["EWR",] = OnlineRow(clock.now_us(), (10.0,), "mat_1")
    install(gateway, plane, weather(plane))
    bearer = plane.token(ttl_s=3600)

    statuses = [ask(gateway, FLIGHT, bearer)[0] for _ in range(30)]
    reasons = gateway.reasons()
    asked = store.asked
    clock.passed_s, store.down = 1.5, False
    again = ask(gateway, FLIGHT, bearer)

    assert statuses == [503] * 30
    assert asked == 20
    assert [
        said for said in reasons if "the online store failed too often of late: the store is away" in said
    ]
    assert again[0] == 200
    assert gateway.scoring.store.state == "closed"


def test_a_store_that_is_well_again_makes_the_gateway_ready_with_or_without_a_probe(
    gateway: Gateway, plane: DataPlane, store: Store, clock: Clock
) -> None:
    store.rows["EWR",] = OnlineRow(clock.now_us(), (10.0,), "mat_1")
    install(gateway, plane, weather(plane))
    bearer = plane.token(ttl_s=3600)
    store.local = True
    store.down = True
    for _ in range(20):
        ask(gateway, FLIGHT, bearer)
    store.down = False

    open_reasons = gateway.reasons()
    answered_meanwhile = ask(gateway, FLIGHT, bearer)[0]  # a store in this process is asked all the same
    clock.passed_s = 1.5
    before_a_probe = gateway.reasons()
    ask(gateway, FLIGHT, bearer)

    assert [said for said in open_reasons if "failed too often of late" in said]
    assert (answered_meanwhile, before_a_probe) == (200, [])
    assert gateway.scoring.store.state == "closed"


def test_what_failed_for_one_caller_is_not_told_to_another(gateway: Gateway, plane: DataPlane) -> None:
    async def quotes_its_row(_number: int) -> float:
        raise BadAnswer("the model failed on the row of patient 17")

    lane = Lane("delay@2", quotes_its_row)
    config = EndpointConfig(name="delay", live=sound(plane, version="delay@2"), runtime="worker")
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))
    for _ in range(20):
        ask(gateway, BODY, plane.token())

    said = [
        ask(gateway, BODY, plane.token("bob"))[2],
        readiness(gateway, plane.token("bob")),
        ask(gateway, {}, plane.token(), path="/v2/health/ready", method="GET")[2],
    ]

    assert "failed too often of late" in json.dumps(said)
    assert "patient" not in json.dumps(said)


# models in workers


async def fails(_number: int) -> float:
    raise WorkerLost("its worker ended")


async def sheds(_number: int) -> float:
    raise Shed("too much to do", retry_after_s=2.0)


async def is_late(_number: int) -> float:
    raise DeadlineExceeded("too late")


@pytest.mark.parametrize(
    ("play", "when", "stands_in"),
    [
        (fails, ("failed",), True), (fails, ("late", "shed", "features"), False),
        (is_late, ("late",), True), (is_late, ("failed", "shed", "features"), False),
        (sheds, ("shed",), True), (sheds, ("failed", "late", "features"), False),
    ],
)  # fmt: skip
def test_each_occasion_is_stood_in_for_where_it_was_declared(
    gateway: Gateway,
    plane: DataPlane,
    play: Callable[[int], Awaitable[float]],
    when: tuple[Any, ...],
    stands_in: bool,
) -> None:
    lane = Lane("delay@2", play)
    live = sound(plane, version="delay@2")
    config = EndpointConfig(
        name="delay", live=live, runtime="worker", fallbacks=(DEFAULT,), fallback_when=when
    )
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))

    status, said, _ = ask(gateway, BODY, plane.token())

    assert (status == 200, said.get("taut-fallback")) == (stands_in, "default" if stands_in else None)


def test_the_live_version_leaves_time_for_its_stand_in(gateway: Gateway, plane: DataPlane) -> None:
    lane = Lane("delay@2", is_late)
    config = EndpointConfig(
        name="delay", live=sound(plane, version="delay@2"), runtime="worker", fallbacks=(DEFAULT,)
    )
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))

    ask(gateway, BODY, plane.token(), taut_deadline_ms="60000")

    assert 30 < lane.deadlines_s[0] <= 54.001  # a tenth is kept


def test_nobody_waits_for_workers_that_are_all_gone_when_something_stands_in(
    gateway: Gateway, plane: DataPlane
) -> None:
    lane = Lane("delay@2", fails)
    config = EndpointConfig(
        name="delay", live=sound(plane, version="delay@2"), runtime="worker", fallbacks=(DEFAULT,)
    )
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))
    lane.alive = 0

    _, said, _ = ask(gateway, BODY, plane.token())

    assert (said["taut-fallback"], lane.asked) == ("default", 0)


def test_overload_and_lateness_open_no_breaker(gateway: Gateway, plane: DataPlane) -> None:
    for play in (sheds, is_late):
        lane = Lane("delay@2", play)
        live = sound(plane, version="delay@2", bias=1.0 if play is sheds else 2.0)
        install(
            gateway,
            plane,
            EndpointConfig(name="delay", live=live, runtime="worker"),
            fleet=Fleet(delay_2=lane),
        )
        for _ in range(30):
            ask(gateway, BODY, plane.token())

        assert lane.asked == 30


def test_workers_that_keep_dying_are_left_alone_also_where_nothing_stands_in(
    gateway: Gateway, plane: DataPlane
) -> None:
    lane = Lane("delay@2", fails)
    config = EndpointConfig(name="delay", live=sound(plane, version="delay@2"), runtime="worker")
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))

    found = [ask(gateway, BODY, plane.token()) for _ in range(25)]

    assert [status for status, _, _ in found] == [503] * 25
    assert lane.asked == 20
    assert "failed too often of late" in found[-1][2]["error"]["message"]
    assert not readiness(gateway, plane.token())["ready"]


# equal requests of one moment


def cached_lane(
    plane: DataPlane, gateway: Gateway, play: Callable[[int], Awaitable[float]], **more: Any
) -> Lane:
    lane = Lane("delay@2", play)
    config = EndpointConfig(
        name="delay",
        live=sound(plane, version="delay@2"),
        runtime="worker",
        cache=CacheConfig(ttl_s=60.0),
        **more,
    )
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))
    return lane


def together(
    gateway: Gateway, *requests: dict[str, str], bearer: str
) -> list[tuple[int, dict[str, str], Any]]:
    async def run() -> list[tuple[int, dict[str, str], Any]]:
        return await asyncio.gather(*(answer(gateway, BODY, bearer, **one) for one in requests))

    return asyncio.run(run())


def test_equal_requests_of_one_moment_are_computed_once(gateway: Gateway, plane: DataPlane) -> None:
    async def slowly(_number: int) -> float:
        await asyncio.sleep(0.02)
        return 0.75

    lane = cached_lane(plane, gateway, slowly)

    found = together(gateway, *[{}] * 20, bearer=plane.token())

    assert lane.asked == 1
    assert sorted(said["taut-cache"] for _, said, _ in found) == ["hit"] * 19 + ["miss"]
    assert len({one["request_id"] for _, _, one in found}) == 20
    assert {one["predictions"][0]["probability"] for _, _, one in found} == {0.75}
    assert sum(one.age_us > 0 for one in records(plane)) == 19


def test_a_leaders_own_misfortune_lets_the_next_one_try(gateway: Gateway, plane: DataPlane) -> None:
    async def sheds_the_first(number: int) -> float:
        await asyncio.sleep(0.01)
        if number == 1:
            raise Shed("too much to do")
        return 0.75

    lane = cached_lane(plane, gateway, sheds_the_first)

    found = together(gateway, *[{}] * 10, bearer=plane.token())

    assert sorted(status for status, _, _ in found) == [200] * 9 + [503]
    assert lane.asked == 2


def test_a_failure_of_the_model_is_that_of_all_who_asked_the_same_and_is_not_kept(
    gateway: Gateway, plane: DataPlane
) -> None:
    async def fails_at_first(number: int) -> float:
        await asyncio.sleep(0.01)
        if number == 1:
            raise WorkerLost("its worker ended")
        return 0.75

    lane = cached_lane(plane, gateway, fails_at_first)

    together_found = together(gateway, *[{}] * 5, bearer=plane.token())
    asked = lane.asked

    assert [status for status, _, _ in together_found] == [503] * 5
    assert asked == 1
    assert ask(gateway, BODY, plane.token())[1]["taut-cache"] == "miss"


def test_a_follower_waits_no_longer_than_it_can(plane: DataPlane) -> None:
    async def forever(_number: int) -> float:
        await asyncio.Event().wait()
        return 0.5

    async def run(gateway: Gateway) -> tuple[int, dict[str, str], Any]:
        leader = asyncio.create_task(answer(gateway, BODY, plane.token(), taut_deadline_ms="60000"))
        while not lane.asked:
            await asyncio.sleep(0)
        found = await answer(gateway, BODY, plane.token(), taut_deadline_ms="30")
        leader.cancel()
        await asyncio.wait((leader,))
        return found

    with open_gateway(plane.home, SystemRandom()) as gateway:
        lane = cached_lane(plane, gateway, forever)
        status, _, found = asyncio.run(run(gateway))

    assert (status, found["error"]["code"]) == (504, "deadline_exceeded")
    assert lane.asked == 1


def test_a_leader_who_hangs_up_does_not_take_the_others_with_him(gateway: Gateway, plane: DataPlane) -> None:
    left = asyncio.Event()

    async def when_the_leader_left(_number: int) -> float:
        await left.wait()
        return 0.75

    lane = cached_lane(plane, gateway, when_the_leader_left)

    async def run() -> tuple[int, dict[str, str], Any]:
        leader = asyncio.create_task(answer(gateway, BODY, plane.token()))
        while not lane.asked:
            await asyncio.sleep(0)
        follower = asyncio.create_task(answer(gateway, BODY, plane.token()))
        await asyncio.sleep(0.005)
        leader.cancel()
        left.set()
        return await follower

    status, _, _ = asyncio.run(run())

    assert (status, lane.asked) == (200, 2)


def test_the_hurried_do_not_wait_with_the_patient(gateway: Gateway, plane: DataPlane) -> None:
    async def slowly(_number: int) -> float:
        await asyncio.sleep(0.02)
        return 0.75

    lane = cached_lane(plane, gateway, slowly)

    together(
        gateway, {"taut_priority": "1"}, {"taut_priority": "9"}, {"taut_priority": "1"}, bearer=plane.token()
    )

    assert lane.asked == 2


def test_a_slow_worker_is_hedged_where_another_is_idle(gateway: Gateway, plane: DataPlane) -> None:
    async def slow_at_first(number: int) -> float:
        await asyncio.sleep(30.0 if number == 1 else 0.0)
        return 0.75

    lane = Lane("delay@2", slow_at_first)
    config = EndpointConfig(
        name="delay", live=sound(plane, version="delay@2"), runtime="worker", workers=2, hedge_after_ms=5.0
    )
    install(gateway, plane, config, fleet=Fleet(delay_2=lane))

    status, _, found = ask(gateway, BODY, plane.token())

    assert (status, lane.asked) == (200, 2)
    assert found["predictions"][0]["probability"] == 0.75
