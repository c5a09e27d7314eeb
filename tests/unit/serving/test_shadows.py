"""A shadow in a gateway with real models: asked once the answer is made, compared pair by pair, and heard by nobody."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from graphs import model, plan_of, served_graph
from msgspec import structs

from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, DeadlineExceeded, TautError
from taut.serving.errors import BadAnswer, FeaturesLost, WorkerLost
from taut.serving.gateway import Gateway, GatewayNode, Reply, compile_snapshot
from taut.serving.gateway.placing import named_models
from taut.serving.predictions import SHADOW_OF, SHADOWED, PredictionReader, PredictionRecord
from taut.serving.runtime import Outputs
from taut.serving.snapshot import CacheConfig, PreviousVersion, ShadowConfig
from taut.serving.trials import NOBODYS, Pairs, Sampling, ShadowReading, decode_shadows, encode_trials
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
RELEASE = "rel_delay_2"


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made
        asyncio.run(made.mirror.close())


def install(
    gateway: Gateway, plane: DataPlane, *, share: float = 1.0, bias: float = 0.25, **how: Any
) -> None:
    model = plane.served(matrix_model(3, bias=bias), matrix_signature(3), version="delay@2")
    live = how.pop("live", None)
    config = plane.endpoint(shadow=ShadowConfig(model=model, share=share), **how)
    config = config if live is None else structs.replace(config, live=live)
    snapshot = plane.snapshot(config)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(
    gateway: Gateway, plane: DataPlane, *subjects: str, path: str = "/v1/predict/delay", **more: Any
) -> list[Reply]:
    """Ask one after the other, and let the shadow answer whatever it was asked."""

    async def run() -> list[Reply]:
        token = plane.token("ana", jti="ana").encode()
        body: Any = {"instances": [INSTANCE], **more}
        if path.startswith("/v2"):
            body = {"inputs": [{"name": n, "shape": [1], "datatype": "FP32", "data": [x]} for n, x in INSTANCE.items()]}  # fmt: skip
        replies = []
        for subject in subjects:
            lines = [(b"authorization", b"Bearer " + token), (b"taut-subject", subject.encode())]
            found = gateway.answer("POST", path, lines, json.dumps(body).encode())
            replies.append(await found if inspect.isawaitable(found) else found)
            await gateway.mirror.idle()
        return replies

    return asyncio.run(run())


def told(gateway: Gateway) -> ShadowReading:
    (reading,) = gateway.mirror.reading()
    return reading


def records(plane: DataPlane, gateway: Gateway) -> list[PredictionRecord]:
    asyncio.run(gateway.outcomes._log.synced())
    return list(PredictionReader(plane.home / "log" / "predictions").records())


def test_the_live_version_answers_and_the_shadow_is_compared_with_it(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, bias=0.25)
    replies = ask(gateway, plane, *[f"s{at}" for at in range(8)])
    assert all(b"taut-model-version: delay@1" in reply.head for reply in replies)
    found = told(gateway)
    assert (found.release, found.ready, found.answered, found.dropped) == (RELEASE, True, 8, 0)
    assert (found.differ, found.failed, len(found.callers)) == (0, (0, 0), 8)
    assert sum(found.times) == 4  # every second pair
    assert decode_shadows(encode_trials([found])) == (found,)


def test_what_a_shadow_says_is_in_the_log_and_can_be_taken_for_no_answer(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    ask(gateway, plane, "s1")
    live, shadow = records(plane, gateway)
    assert (live.status, live.version) == (200, "delay@1")
    assert (shadow.status, shadow.version, shadow.rows) == (SHADOWED, "delay@2", ())
    assert shadow.fallback == f"{SHADOW_OF}{live.request_id}"
    assert (shadow.head.release, shadow.head.share) == (RELEASE, 1.0)
    assert shadow.answer != live.answer


def test_requests_are_drawn_evenly_and_none_where_it_only_lies_ready(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, share=0.25)
    ask(gateway, plane, *["s"] * 40)
    drawn = told(gateway).answered
    assert drawn in (9, 10, 11)
    install(gateway, plane, share=0.0)
    ask(gateway, plane, *["s"] * 10)
    assert (told(gateway).answered, told(gateway).ready) == (drawn, True)
    assert gateway.active is not None
    assert gateway.active.endpoints["delay"].split is None


def test_both_protocols_are_compared_and_who_names_a_version_is_not(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    ask(gateway, plane, "s1", path="/v2/models/delay/infer")
    assert told(gateway).answered == 1
    ask(gateway, plane, "s1", path="/v2/models/delay/versions/1/infer")
    assert told(gateway).answered == 1


def test_a_shadow_that_fails_is_told_once_a_caller_and_minute_and_callers_do_not_notice(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, bias=math.nan)
    replies = ask(gateway, plane, *["s1"] * 5, *["s2"] * 5)
    assert {reply.status for reply in replies} == {200}
    found = told(gateway)
    assert found.answered == 0
    assert found.failed[1] == 0
    assert found.failed[0] in (2, 3, 4)  # two callers, whose minute may have changed meanwhile
    assert {record.error.partition(":")[0] for record in records(plane, gateway)} == {"", "bad_answer"}


def test_where_the_live_version_alone_fails_the_pair_says_so(gateway: Gateway, plane: DataPlane) -> None:
    live = plane.served(matrix_model(3, bias=math.nan), matrix_signature(3), version="delay@1")
    install(gateway, plane, live=live)
    assert {reply.status for reply in ask(gateway, plane, "s1", "s2")} == {503}
    assert (told(gateway).failed[0], told(gateway).answered) == (0, 0)
    assert told(gateway).failed[1] >= 2
    before = plane.served(matrix_model(3), matrix_signature(3), version="delay@0")
    install(gateway, plane, live=live, fallbacks=(PreviousVersion(model=before),))
    assert {reply.status for reply in ask(gateway, plane, "s3")} == {200}
    assert told(gateway).failed[1] >= 3


def test_a_request_that_is_refused_is_not_compared(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane)
    assert ask(gateway, plane, "s1", instances=[{"x0": "no"}])[0].status == 422
    assert told(gateway) == structs.replace(told(gateway), answered=0, failed=(0, 0), dropped=0)


def test_a_cached_answer_is_compared_and_the_shadow_leaves_nothing_in_the_cache(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, cache=CacheConfig(ttl_s=60.0))
    replies = ask(gateway, plane, "s1", "s1", "s1")
    assert [b"hit" in reply.head for reply in replies] == [False, True, True]
    assert all(b"delay@1" in reply.head for reply in replies)
    assert told(gateway).answered == 3


def test_a_shadow_draws_on_no_quota_and_is_in_no_meter_of_the_live_version(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    ask(gateway, plane, "s1", "s2")
    (metered,) = gateway.meters().endpoints
    assert (metered.version, sum(metered.stages["total"].counts)) == ("delay@1", 2)
    assert gateway.callers.reading() == {"ana": {"delay": 2}}
    assert gateway.outcomes.answers == 2


def test_what_finds_no_room_is_dropped_and_counted(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane)

    async def burst() -> None:  # without a turn of the loop in which the shadow could begin
        lines = [(b"authorization", b"Bearer " + plane.token("ana").encode())]
        for _ in range(80):
            reply = gateway.answer(
                "POST", "/v1/predict/delay", lines, json.dumps({"instances": [INSTANCE]}).encode()
            )
            assert not inspect.isawaitable(reply)
        await gateway.mirror.idle()

    asyncio.run(burst())
    assert (told(gateway).answered, told(gateway).dropped) == (64, 16)
    ask(gateway, plane, "s1", instances=[INSTANCE] * 9_000)  # larger than what may wait
    assert told(gateway).dropped == 17


def test_a_shadow_that_cannot_be_loaded_is_told_and_keeps_nobody_from_being_served(
    gateway: Gateway, plane: DataPlane
) -> None:
    model = plane.served(matrix_model(3), matrix_signature(3), version="delay@2")
    lost = structs.replace(model, artifact="sha256:" + "0" * 64)
    snapshot = plane.snapshot(plane.endpoint(shadow=ShadowConfig(model=lost, share=1.0)))
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
    assert [reply.status for reply in ask(gateway, plane, "s1")] == [200]
    found = told(gateway)
    assert (found.ready, found.answered, found.dropped) == (False, 0, 1)
    assert "digest" in found.fault


def test_counts_are_kept_over_epochs_and_forgotten_with_the_release(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    ask(gateway, plane, "s1")
    install(gateway, plane)
    ask(gateway, plane, "s1")
    assert told(gateway).answered == 2
    snapshot = plane.snapshot(plane.endpoint())
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))
    assert gateway.mirror.reading() == ()


def test_the_version_that_is_kept_for_the_way_back_is_in_memory_and_is_the_same_when_it_answers_again(
    gateway: Gateway, plane: DataPlane
) -> None:
    green = plane.served(matrix_model(3, bias=0.5), matrix_signature(3), version="delay@2")
    blue = plane.served(matrix_model(3), matrix_signature(3), version="delay@1")
    loaded = []
    for live, beside in (
        (blue, {"shadow": ShadowConfig(model=green)}), (green, {"kept": blue}), (blue, {}),
    ):  # fmt: skip
        snapshot = plane.snapshot(structs.replace(plane.endpoint(), live=live, **beside))
        gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))
        assert gateway.active is not None
        loaded.append({one.name: one.model for one in gateway.active.models.values()})
    assert loaded[0] == loaded[1]
    assert loaded[2] == {"delay@1": loaded[0]["delay@1"]}
    assert all(one is not None for one in loaded[0].values())


def test_pairs_are_crossed_at_every_edge_between_both_predictions() -> None:
    pairs = Pairs("rel")
    low, high = (
        Outputs(labels=[0], probabilities=[[0.95, 0.05]]),
        Outputs(labels=[1], probabilities=[[0.65, 0.35]]),
    )
    pairs.compare(low, high)
    pairs.compare(high, low)
    pairs.compare(low, high)
    pairs.compare(low, low)
    found = pairs.reading(ready=True, fault="")
    assert (found.answered, found.differ) == (4, 3)
    assert found.moved[0][:4] == (2, 2, 2, 0)
    assert found.moved[1][:4] == (1, 1, 1, 0)


def test_values_are_the_same_decision_within_a_tenth() -> None:
    pairs = Pairs("rel")
    for live, shadow in ((100.0, 109.0), (100.0, 120.0), (100.0, 50.0), (-1.0, 1.0), (0.0, 0.0)):
        pairs.compare(Outputs(values=[live]), Outputs(values=[shadow]))
    found = pairs.reading(ready=True, fault="")
    assert (found.differ, found.moved[0][0], found.moved[1][0]) == (3, 2, 1)


def test_a_stream_is_drawn_once() -> None:
    taken: list[Any] = []
    sampling = Sampling("rel", 1.0, live=None, endpoint=object())
    sampling.take = lambda _sampling, pairing: taken.append(pairing)

    class Asked:
        request_id, now_us, session, json_bytes = "req", 0, None, None
        route = type("Route", (), {"kind": "v1"})

    drawn = sampling.draw("u", Asked, None, b"")
    assert drawn is not None
    for _ in range(3):
        drawn.answered(None, (), Outputs(), 1, False, 0)
    drawn.fail("internal", 0)
    assert taken == [drawn]


def test_what_is_no_reading_of_a_shadow_is_refused() -> None:
    assert decode_shadows(b"null") == ()
    with pytest.raises(Corrupt):
        decode_shadows(b'[{"release": 1}]')


def test_a_shadow_that_a_gateway_cannot_have_is_refused_at_its_start_and_after_a_restart_it_serves_without(
    gateway: Gateway, plane: DataPlane
) -> None:
    def node(of: Gateway) -> GatewayNode:
        return GatewayNode(
            of, home=plane.home, name="gateway-0", store=plane.store, trust=plane.trust, random=SystemRandom()
        )

    green = plane.served(matrix_model(3, bias=0.5), matrix_signature(3), version="delay@2")
    lost = structs.replace(green, artifact="sha256:" + "0" * 64)
    before, after = (
        plane.sign(plane.snapshot(config)).to_json()
        for config in (plane.endpoint(), plane.endpoint(shadow=ShadowConfig(model=lost)))
    )

    async def refused() -> list[Any]:
        one = node(gateway)
        return [await one.apply(before), await one.apply(after), await one.close()]

    acks = asyncio.run(refused())
    assert [ack.applied for ack in acks[:2]] == [True, False]
    assert "delay@2 cannot lie ready beside the live version" in acks[1].reason

    with open_gateway(plane.home, SystemRandom()) as anew:

        async def restarted() -> Any:
            one = node(anew)
            ack = await one.apply(after)
            await one.close()
            return ack

        assert asyncio.run(restarted()).applied
        assert (told(anew).ready, "digest" in told(anew).fault) == (False, True)
        assert [reply.status for reply in ask(anew, plane, "s1")] == [200]


def test_a_graph_is_a_shadow_too_and_never_runs_on_the_loop(gateway: Gateway, plane: DataPlane) -> None:
    plan = plan_of(model("steep"), model("fed", inputs={"p": "steep.probability"}), output="fed")
    live, shadow = (served_graph(plane, plan, version=version) for version in ("delay@1", "delay@2"))
    config = structs.replace(plane.endpoint(), live=live, shadow=ShadowConfig(model=shadow, share=1.0))
    gateway.install(compile_snapshot(plane.snapshot(config), home=plane.home, before=None))
    ask(gateway, plane, "s1", "s2")
    found = told(gateway)
    assert (found.answered, found.differ, found.failed, sum(found.times)) == (2, 0, (0, 0), 0)
    shadows = [one for one in records(plane, gateway) if one.status == SHADOWED]
    assert [one.nodes for one in shadows] == [("steep=steep@1", "fed=fed@1")] * 2
    assert "shadow_0" in {thread.name for thread in threading.enumerate()}


def test_neither_side_may_be_evicted_while_a_switch_may_come_and_only_the_live_one_must_be_had(
    plane: DataPlane,
) -> None:
    other = plane.served(matrix_model(3, bias=0.5), matrix_signature(3), version="delay@2")

    def named(**beside: Any) -> list[tuple[str, str, bool | None]]:
        snapshot = plane.snapshot(plane.endpoint(**beside))
        return [(served.version, part, config.keep_loaded) for served, config, part in named_models(snapshot)]

    both = [("delay@1", "live", True), ("delay@2", "beside", True)]
    assert named(shadow=ShadowConfig(model=other)) == both
    assert named(kept=other) == both
    assert named() == [("delay@1", "live", None)]


@pytest.mark.parametrize("error", [FeaturesLost("gone"), WorkerLost("gone"), DeadlineExceeded("late")])
def test_what_is_nobodys_fault_is_dropped_on_both_sides(error: TautError) -> None:
    assert error.code in NOBODYS
    taken: list[Any] = []
    sampling = Sampling("rel_2", 1.0, live=None, endpoint=object())
    sampling.take = lambda _sampling, pairing: taken.append(pairing)
    route = SimpleNamespace(kind="v1")
    ticket = SimpleNamespace(request_id="r", now_us=0, session=None, route=route, json_bytes=None)
    for code in (error.code, BadAnswer.code):
        pairing = sampling.draw("u", ticket, None, b"")
        assert pairing is not None
        pairing.fail(code, 0)
    assert len(taken) == 1
