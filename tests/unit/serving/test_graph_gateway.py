"""Graphs behind a gateway: answers, marks, records, traces, meters, and nodes in workers that fail."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from graphs import MODELS, ROW, model, plan_of, served_graph

from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, DeadlineExceeded, InvalidInput
from taut.core.graphs import GraphPlan, Node
from taut.serving.errors import BadAnswer, Shed, WorkerLost
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.stocking import Stocking
from taut.serving.graphs import GraphModel
from taut.serving.memory import Heap
from taut.serving.meters import BATCH_ROWS, Histogram
from taut.serving.predictions import PredictionReader, PredictionRecord
from taut.serving.runtime import load
from taut.serving.snapshot import CacheConfig, DefaultAnswer, EndpointConfig, PreviousVersion, ShadowConfig
from taut.serving.tracing import Tracer
from taut.serving.workers import Rota, WorkerModel
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway, with_fields

BODY = {"instances": [ROW, {"x0": -1.0, "x1": 0.0, "x2": 0.5}]}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEEP, FLAT = model("steep"), model("flat")
SHARES = np.array([[0.25, 0.75], [0.25, 0.75]])  # what the played workers say


def blend(**more: Any) -> GraphPlan:
    return plan_of(
        STEEP, FLAT, Node(name="blend", kind="average", of=("steep", "flat"), **more), output="blend"
    )


def alone(name: str) -> np.ndarray[Any, Any]:
    columns = {key: [row[key] for row in BODY["instances"]] for key in ROW}
    return np.asarray(load(*MODELS[name]).infer(columns).probabilities)


class Lane:
    """Workers of one node, played. play: is awaited; what it raises is raised."""

    def __init__(self, play: Callable[[], Awaitable[None]] | None = None, *, alive: int = 1) -> None:
        self.name = "played"
        self.loaded = SimpleNamespace(inputs={"input": ("tensor(float)", 2)}, cost=None)
        self.alive, self.idle, self.asked = alive, 1, 0
        self.play = play
        self.left_s = 0.0  # what the last one to ask left for an answer
        self.wanted, self.waiting_rows, self.shed, self.lost, self.spares, self.held_s = 1, 0, 0, 0, 0, 0.0
        self.sizes, self.rota = Histogram(BATCH_ROWS), Rota()

    async def run(self, _feed: Any, rows: int, *, within_s: float, **_more: Any) -> Any:
        self.asked += 1
        self.left_s = within_s
        if self.play is not None:
            try:
                async with asyncio.timeout(within_s):
                    await self.play()
            except TimeoutError:
                raise DeadlineExceeded("not done in time") from None
        return np.array(SHARES[:1].tolist() * rows, dtype=np.float32)


class Fleet:
    """Gives every model the lane that the test made for it."""

    def __init__(self, **lanes: Lane) -> None:
        self.lanes = lanes

    def open(self, _key: str, name: str, _model: bytes, order: Any, *_: Any, **__: Any) -> WorkerModel:
        return WorkerModel(cast(Any, self.lanes[name.partition("@")[0]]), order.signature)


@pytest.fixture
def tracer() -> Tracer:
    return Tracer(ratio=0.0, random=SystemRandom())


@pytest.fixture
def gateway(plane: DataPlane, tracer: Tracer) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom(), tracer=tracer) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, plan: GraphPlan, *, fleet: Any = None, **more: Any) -> None:
    runtime = "inline" if fleet is None else "worker"
    config = EndpointConfig(name="late", live=served_graph(plane, plan), runtime=runtime, **more)  # type: ignore[arg-type]  # one of two
    gateway.install(
        compile_snapshot(plane.snapshot(config), home=plane.home, before=gateway.active, fleet=fleet)
    )


def ask(
    gateway: Gateway, plane: DataPlane, document: Any = BODY, *, path: str = "/v1/predict/late", method: str = "POST", **more: str
) -> tuple[int, dict[str, str], Any]:  # fmt: skip
    async def answered() -> Reply:
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
        lines.append((b"authorization", b"Bearer " + plane.token().encode()))
        found = gateway.answer(method, path, lines, json.dumps(document).encode())
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(answered())
    return (
        reply.status,
        {name.decode(): value.decode() for name, value in reply.header_list()},
        json.loads(reply.body),
    )


def said(document: Any) -> list[float]:
    return [row["probability"] for row in document["predictions"]]


def records(plane: DataPlane) -> list[PredictionRecord]:
    return list(PredictionReader(plane.home / "log" / "predictions").records())


def nodes(gateway: Gateway) -> dict[str, Any]:
    return {one.node: one for endpoint in gateway.meters().endpoints for one in endpoint.nodes}


def test_a_graph_answers_the_mean_of_its_nodes_and_says_all_about_it(
    gateway: Gateway, plane: DataPlane, tracer: Tracer
) -> None:
    install(gateway, plane, blend(weights=(3.0, 1.0)))

    status, headers, found = ask(gateway, plane, traceparent=TRACEPARENT)

    assert (status, headers["taut-model-version"], headers.get("taut-fallback")) == (200, "blend@1", None)
    np.testing.assert_allclose(said(found), (0.75 * alone("steep") + 0.25 * alone("flat"))[:, 1])
    [record] = records(plane)
    assert (record.version, record.nodes, record.fallback) == (
        "blend@1",
        ("steep=steep@1", "flat=flat@1"),
        "",
    )
    [span] = tracer.take(10)
    assert [name for name, _, _ in span.stages if name.startswith("node ")] == ["node steep", "node flat"]
    assert {name: (one.times.count, one.failed, one.left_out) for name, one in nodes(gateway).items()} == {
        "steep": (1, 0, 0), "flat": (1, 0, 0),
    }  # fmt: skip


def test_the_metadata_lists_what_a_caller_sends(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plan_of(STEEP, model("fed", inputs={"p": "steep.probability"}), output="fed"))

    _, _, found = ask(gateway, plane, path="/v2/models/late", method="GET")

    assert (found["platform"], [one["name"] for one in found["inputs"]]) == ("ensemble", ["x0", "x1", "x2"])
    status, _, told = ask(gateway, plane, {"instances": [{**ROW, "p": 0.5}]})
    assert (status, told["error"]["code"]) == (422, "invalid_input")


def test_v2_tensors_and_the_matrix_form_are_taken(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, blend())
    tensor = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": list(ROW.values())}

    status, _, found = ask(gateway, plane, {"inputs": [tensor]}, path="/v2/models/late/infer")

    assert status == 200
    np.testing.assert_allclose(found["outputs"][1]["data"], (alone("steep")[0] + alone("flat")[0]) / 2)


def test_nodes_in_workers_and_nodes_here_answer_together(gateway: Gateway, plane: DataPlane) -> None:
    lane = Lane()
    install(gateway, plane, blend(), fleet=Fleet(steep=lane, flat=Lane()))

    _, _, found = ask(gateway, plane)

    np.testing.assert_allclose(said(found), SHARES[:, 1])
    assert lane.asked == 1


def test_independent_nodes_in_workers_run_side_by_side(gateway: Gateway, plane: DataPlane) -> None:
    met = 0

    async def meet() -> None:  # neither ends before both have begun
        nonlocal met
        met += 1
        while met < 2:
            await asyncio.sleep(0.001)

    install(gateway, plane, blend(), fleet=Fleet(steep=Lane(meet), flat=Lane(meet)))

    assert ask(gateway, plane)[0] == 200


def failing(error: Exception) -> Callable[[], Awaitable[None]]:
    async def play() -> None:
        raise error

    return play


@pytest.mark.parametrize(
    ("lane", "code", "message"),
    [
        (Lane(failing(BadAnswer("it gave NaN"))), "bad_answer", "node 'flat': it gave NaN"),
        (Lane(failing(WorkerLost("it died"))), "unavailable", "node 'flat': it died"),
        (Lane(alive=0), "unavailable", "node 'flat': no worker of played is ready"),
    ],
)
def test_a_node_that_cannot_be_left_out_fails_the_answer_in_its_name(
    gateway: Gateway, plane: DataPlane, lane: Lane, code: str, message: str
) -> None:
    install(gateway, plane, blend(), fleet=Fleet(steep=Lane(), flat=lane))

    status, _, found = ask(gateway, plane)

    assert (status, found["error"]["code"]) == (503, code)
    assert message in found["error"]["message"]


def test_what_is_the_requests_own_fault_is_told_and_never_tolerated(
    gateway: Gateway, plane: DataPlane
) -> None:
    flat = Lane(failing(InvalidInput("it takes no such value")))
    install(gateway, plane, blend(tolerate=1), fleet=Fleet(steep=Lane(), flat=flat))
    status, _, found = ask(gateway, plane)
    assert (status, found["error"]["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("lane", [Lane(failing(BadAnswer("it gave NaN"))), Lane(alive=0)])
def test_a_node_that_is_left_out_is_named_counted_recorded_and_not_cached(
    gateway: Gateway, plane: DataPlane, lane: Lane
) -> None:
    steep = Lane()
    cache = CacheConfig(ttl_s=60.0)
    install(gateway, plane, blend(tolerate=1), fleet=Fleet(steep=steep, flat=lane), cache=cache)

    status, headers, found = ask(gateway, plane)

    assert (status, headers["taut-fallback"], headers["taut-model-version"]) == (
        200,
        "without=flat",
        "blend@1",
    )
    np.testing.assert_allclose(said(found), SHARES[:, 1])
    ask(gateway, plane)
    assert steep.asked == 2  # an answer without a node is not kept
    first = records(plane)[0]
    assert (first.nodes, first.fallback, first.version) == (("steep=steep@1",), "without=flat", "blend@1")
    assert (nodes(gateway)["flat"].failed, nodes(gateway)["flat"].left_out) == (2, 2)
    assert gateway.meters().endpoints[0].fallbacks == 2
    if not lane.alive:
        ready = ask(gateway, plane, path="/v2/health/ready", method="GET")[2]
        assert ready["ready"]
        assert "answers without that node" in ready["degraded"][0]


def test_a_node_that_is_late_is_left_out_while_there_is_time_to_answer(
    gateway: Gateway, plane: DataPlane
) -> None:
    async def out_of_time() -> None:  # as if it had waited until its deadline
        raise TimeoutError

    hanging = Lane(out_of_time)
    install(gateway, plane, blend(tolerate=1), fleet=Fleet(steep=Lane(), flat=hanging))
    status, headers, _ = ask(gateway, plane, taut_deadline_ms="60000")
    assert (status, headers.get("taut-fallback")) == (200, "without=flat")
    assert hanging.left_s < 57

    install(gateway, plane, blend(), fleet=Fleet(steep=Lane(), flat=hanging))
    status, _, found = ask(gateway, plane, taut_deadline_ms="60000")
    assert (status, found["error"]["code"]) == (504, "deadline_exceeded")
    assert "node 'flat'" in found["error"]["message"]


def test_a_gateway_without_a_needed_node_is_not_ready(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, blend(), fleet=Fleet(steep=Lane(), flat=Lane(alive=0)))
    assert any("no worker of played is ready" in why for why in gateway.reasons())


def test_a_whole_answer_is_cached_and_the_hit_asks_no_node(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, blend(), cache=CacheConfig(ttl_s=60.0))

    answers = [ask(gateway, plane) for _ in range(2)]

    assert [headers["taut-cache"] for _, headers, _ in answers] == ["miss", "hit"]
    assert said(answers[0][2]) == said(answers[1][2])
    assert nodes(gateway)["steep"].times.count == 1
    assert [record.nodes for record in records(plane)] == [("steep=steep@1", "flat=flat@1"), ()]


def test_the_version_before_stands_in_for_a_graph_and_a_graph_for_a_model(
    gateway: Gateway, plane: DataPlane
) -> None:
    before = plane.served(matrix_model(3, bias=2.0), matrix_signature(3), version="blend@0")
    broken = Fleet(steep=Lane(alive=0), flat=Lane(), blend=Lane())
    install(gateway, plane, blend(), fleet=broken, fallbacks=(PreviousVersion(model=before),))

    status, headers, _ = ask(gateway, plane)
    assert (status, headers["taut-fallback"]) == (200, "blend@0")
    assert records(plane)[0].nodes == ()

    nan = plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3), version="delay@2")
    graph = served_graph(plane, blend(), version="delay@1")
    config = EndpointConfig(
        name="late", live=nan, fallbacks=(PreviousVersion(model=graph),), runtime="inline"
    )
    gateway.install(compile_snapshot(plane.snapshot(config), home=plane.home, before=gateway.active))
    status, headers, found = ask(gateway, plane)
    assert (status, headers["taut-fallback"]) == (200, "delay@1")
    np.testing.assert_allclose(said(found), ((alone("steep") + alone("flat")) / 2)[:, 1])
    assert records(plane)[-1].nodes == ("steep=steep@1", "flat=flat@1")


def test_a_default_answer_stands_in_for_a_graph_whose_node_is_late(
    gateway: Gateway, plane: DataPlane
) -> None:
    async def never() -> None:
        await asyncio.sleep(0.05)
        raise WorkerLost("late")

    install(
        gateway, plane, blend(), fleet=Fleet(steep=Lane(), flat=Lane(never)),
        fallbacks=(DefaultAnswer(probabilities=((0, 0.5), (1, 0.5))),),
    )  # fmt: skip
    status, headers, _ = ask(gateway, plane)
    assert (status, headers["taut-fallback"]) == (200, "default")


def changed(plane: DataPlane, config: EndpointConfig, how: str) -> EndpointConfig:
    live, other = config.live, plane.served(*MODELS["low"], version="flat@1")
    match how:
        case "plan":
            (plane.home / live.path).write_bytes((plane.home / live.path).read_bytes() + b" ")
        case "node":
            (plane.home / live.nodes["flat"].path).write_bytes(MODELS["low"][0])
        case "swapped":  # a node that is sound, but not the one of the plan
            return with_fields(config, live=with_fields(live, nodes={**live.nodes, "flat": other}))
        case "renamed":
            named = with_fields(live.nodes["flat"], version="flat@2")
            return with_fields(config, live=with_fields(live, nodes={**live.nodes, "flat": named}))
        case "missing":
            return with_fields(config, live=with_fields(live, nodes={"steep": live.nodes["steep"]}))
    return config


@pytest.mark.parametrize("how", ["plan", "node", "swapped", "renamed", "missing"])
def test_a_graph_whose_bytes_or_nodes_are_not_those_of_its_plan_is_not_loaded(
    gateway: Gateway, plane: DataPlane, how: str
) -> None:
    config = changed(plane, EndpointConfig(name="late", live=served_graph(plane, blend())), how)
    with pytest.raises(Corrupt):
        compile_snapshot(plane.snapshot(config), home=plane.home, before=None)


def test_a_node_that_keeps_failing_is_left_alone_and_shows_it(gateway: Gateway, plane: DataPlane) -> None:
    flat = Lane(failing(BadAnswer("it gave NaN")))
    install(gateway, plane, blend(tolerate=1), fleet=Fleet(steep=Lane(), flat=flat))

    answers = [ask(gateway, plane) for _ in range(40)]

    assert {(status, headers.get("taut-fallback")) for status, headers, _ in answers} == {
        (200, "without=flat")
    }
    asked = flat.asked
    assert asked < 40
    assert ask(gateway, plane)[0] == 200
    assert flat.asked == asked
    page = ask(gateway, plane, path="/v2/models/late/ready", method="GET")[2]
    assert page["ready"]
    assert any("node 'flat', flat@1, failed too often" in said for said in page["degraded"])
    states = {one["of"]: one["state"] for one in page["breakers"]}
    assert states["node 'flat', flat@1,"] == "open"
    assert states["node 'steep', steep@1,"] == "closed"


def test_a_graph_comes_into_memory_and_leaves_it_as_one(plane: DataPlane) -> None:
    plan = blend()
    config = EndpointConfig(name="late", live=served_graph(plane, plan), runtime="inline")
    stocking = Stocking(home=plane.home, fleet=None, heap=Heap())

    [want] = stocking.wants(plane.snapshot(config))

    whole = len(plan.to_bytes()) + len(MODELS["steep"][0]) + len(MODELS["flat"][0])
    assert want.check() == whole
    found, size_bytes = want.load()
    assert isinstance(found, GraphModel)
    assert size_bytes >= len(MODELS["steep"][0]) + len(MODELS["flat"][0])
    held = [found]
    stocking.let_go(held)
    assert held == []
    (plane.home / config.live.nodes["flat"].path).write_bytes(MODELS["low"][0])
    for look in (want.check, want.load):
        with pytest.raises(Corrupt, match="flat@1"):
            look()


def test_a_shadow_in_workers_is_asked_there_and_one_that_hangs_dies_or_has_no_time_is_nobodys_delay(
    gateway: Gateway, plane: DataPlane
) -> None:
    live, own = Lane(), Lane()
    models = [plane.served(*MODELS[name], version=f"{name}@1") for name in ("steep", "flat")]
    shadow = ShadowConfig(model=models[1], share=1.0)
    config = EndpointConfig(name="late", live=models[0], shadow=shadow, runtime="worker")
    fleet: Any = Fleet(steep=live, flat=own)
    gateway.install(compile_snapshot(plane.snapshot(config), home=plane.home, before=None, fleet=fleet))

    async def run() -> None:
        bearer = [(b"authorization", b"Bearer " + plane.token().encode())]

        async def answered() -> int:
            found = gateway.answer("POST", "/v1/predict/late", bearer, json.dumps(BODY).encode())
            return (await found if inspect.isawaitable(found) else found).status

        assert await answered() == 200
        await gateway.mirror.idle()
        go_on = asyncio.Event()
        for play in (go_on.wait, _dies, _has_no_time):
            own.play = play  # type: ignore[assignment]  # what it returns is nobody's
            assert await answered() == 200
            assert await answered() == 200
            go_on.set()
            await gateway.mirror.idle()
        await gateway.mirror.close()

    asyncio.run(run())
    (told,) = gateway.mirror.reading()
    assert (told.answered, sum(told.times), told.dropped) == (
        3,
        3,
        4,
    )  # a worker that died is as little its model's fault
    assert told.failed[0] == 0
    assert (live.asked, own.asked) == (7, 7)


async def _dies() -> None:
    raise WorkerLost("it died over the request")


async def _has_no_time() -> None:
    raise Shed("the line is full")
