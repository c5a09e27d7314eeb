"""What a gateway counts and traces of real requests: each once, under its status, with the time of its stages."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.meters import EndpointReading
from taut.serving.snapshot import CacheConfig, EndpointConfig, PreviousVersion
from taut.serving.tracing import RequestSpan, Tracer
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway
from taut.trust.quota import Limit

GOOD = {"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Ticks:
    """A counter that goes on by a microsecond whenever it is read."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


@pytest.fixture
def tracer() -> Tracer:
    return Tracer(ratio=0.0, random=SystemRandom())


@pytest.fixture
def gateway(plane: DataPlane, tracer: Tracer) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom(), counter_ns=Ticks(), tracer=tracer) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *endpoints: EndpointConfig) -> None:
    snapshot = plane.snapshot(*endpoints)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(
    gateway: Gateway, bearer: str | None, document: object = GOOD, *, path: str = "/v1/predict/delay", **headers: str
) -> tuple[int, Any]:  # fmt: skip
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if bearer is not None:
        lines.append((b"authorization", b"Bearer " + bearer.encode()))

    async def run() -> Reply:
        found = gateway.answer("POST", path, lines, json.dumps(document).encode())
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    return reply.status, json.loads(reply.body)


def read(gateway: Gateway) -> EndpointReading:
    (found,) = gateway.meters().endpoints
    return found


def refusals(reading: EndpointReading) -> dict[tuple[int, str], int]:
    return {(one.status, one.code): one.count for one in reading.refusals}


def test_every_answer_is_counted_once_with_its_stages(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    for _ in range(3):
        assert ask(gateway, plane.token())[0] == 200
    many = {"instances": GOOD["instances"] * 5000}
    assert ask(gateway, plane.token(), many)[0] == 200  # goes the long way, in the pool

    reading = read(gateway)

    assert (reading.endpoint, reading.version) == ("delay", "delay@1")
    assert {name: stage.count for name, stage in reading.stages.items()} == {
        "guard": 4,
        "model": 4,
        "total": 4,
    }
    sums = {name: stage.total for name, stage in reading.stages.items()}
    assert 0 < sums["guard"] + sums["model"] <= sums["total"]
    assert gateway.meters().in_flight == 0


def test_an_answer_that_waits_for_the_disk_is_counted_when_it_leaves(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint(audit="power-safe"))
    assert ask(gateway, plane.token())[0] == 200

    assert read(gateway).stages["total"].count == 1


def test_refusals_are_counted_by_status_and_code(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint(quota=Limit(rate_per_s=0.001, burst=3)))
    bearer = plane.token()
    assert ask(gateway, None)[0] == 401
    assert ask(gateway, plane.token(roles=["auditor"]))[0] == 403
    assert ask(gateway, bearer, {"instances": [{"x0": "far", "x1": 1.0, "x2": 1.0}]})[0] == 422
    assert ask(gateway, bearer)[0] == 200
    assert ask(gateway, bearer)[0] == 429
    assert ask(gateway, bearer, path="/v1/predict/dely")[0] == 404

    reading = read(gateway)

    assert refusals(reading) == {
        (401, "unauthenticated"): 1, (403, "denied"): 1, (422, "invalid_input"): 1, (429, "exhausted"): 1,
    }  # fmt: skip
    assert reading.stages["total"].count == 1
    outside = gateway.meters().outside
    assert [(one.status, one.code, one.count) for one in outside] == [(404, "not_found", 1)]


def test_counters_go_on_over_a_new_snapshot_and_a_version_has_its_own(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint())
    ask(gateway, plane.token())
    install(gateway, plane, plane.endpoint())  # a new epoch, the same version
    ask(gateway, plane.token())
    newer = plane.served(matrix_model(3, bias=1.0), matrix_signature(3), version="delay@2")
    install(gateway, plane, EndpointConfig(name="delay", live=newer))
    ask(gateway, plane.token())

    counts = {one.version: one.stages["total"].count for one in gateway.meters().endpoints}

    assert counts == {"delay@1": 2, "delay@2": 1}


def spans(tracer: Tracer) -> list[RequestSpan]:
    return tracer.take(100)


def test_a_sampled_request_is_a_span_whose_stages_follow_one_another(
    gateway: Gateway, plane: DataPlane, tracer: Tracer
) -> None:
    install(gateway, plane, plane.endpoint())
    _, document = ask(gateway, plane.token(), traceparent=SAMPLED)
    ask(gateway, plane.token(), traceparent=SAMPLED[:-1] + "0")
    ask(gateway, plane.token(), traceparent="00-malformed-01")
    ask(gateway, plane.token())

    (span,) = spans(tracer)

    assert (span.trace.trace_id, span.trace.parent_id) == tuple(SAMPLED.split("-")[1:3])
    assert (span.status, span.code, span.request_id) == (200, "", document["request_id"])
    assert [name for name, _, _ in span.stages] == ["guard", "decode", "model", "answer"]
    assert span.stages[0][1] == span.started_ns
    for (_, _, end), (_, begin, _) in zip(span.stages, span.stages[1:], strict=False):
        assert begin == end
    assert span.stages[-1][2] == span.ended_ns


def test_a_refused_request_ends_with_the_stage_that_refused_it(
    gateway: Gateway, plane: DataPlane, tracer: Tracer
) -> None:
    install(gateway, plane, plane.endpoint())
    ask(gateway, plane.token(roles=["auditor"]), traceparent=SAMPLED)
    ask(gateway, plane.token(), {"instances": [{}]}, traceparent=SAMPLED)

    denied, invalid = spans(tracer)

    assert (denied.status, denied.code, [stage[0] for stage in denied.stages]) == (403, "denied", ["guard"])
    assert (invalid.status, [stage[0] for stage in invalid.stages]) == (422, ["guard", "decode"])


def test_strangers_cannot_fill_the_buffer_of_traces(
    gateway: Gateway, plane: DataPlane, tracer: Tracer
) -> None:
    install(gateway, plane, plane.endpoint())
    assert ask(gateway, None, traceparent=SAMPLED)[0] == 401
    assert ask(gateway, "forged", traceparent=SAMPLED)[0] == 401

    assert spans(tracer) == []


def test_answers_of_the_cache_are_counted_and_are_none_of_the_models_time(
    plane: DataPlane, tracer: Tracer
) -> None:
    with open_gateway(plane.home, SystemRandom(), tracer=tracer) as gateway:
        install(gateway, plane, plane.endpoint(cache=CacheConfig(ttl_s=60)))
        for _ in range(3):
            assert ask(gateway, plane.token(), traceparent=SAMPLED)[0] == 200

        reading = read(gateway)

    assert (reading.cache_hits, reading.cache_misses) == (2, 1)
    assert (reading.stages["total"].count, reading.stages["model"].count) == (3, 1)
    assert [span.stages[-1][0] for span in spans(tracer)] == ["answer", "cache", "cache"]


def test_an_answer_of_the_fallback_is_counted_as_one(gateway: Gateway, plane: DataPlane) -> None:
    broken = plane.served(matrix_model(3, bias=float("nan")), matrix_signature(3), version="delay@2")
    stand_in = plane.served(matrix_model(3), matrix_signature(3))
    install(
        gateway,
        plane,
        EndpointConfig(name="delay", live=broken, fallbacks=(PreviousVersion(model=stand_in),)),
    )
    assert ask(gateway, plane.token())[0] == 200

    reading = read(gateway)

    assert (reading.version, reading.fallbacks, reading.stages["total"].count) == ("delay@2", 1, 1)
