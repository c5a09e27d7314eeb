"""The gateway at the edges of numbers, classes, snapshots and headers."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.serving.gateway import Gateway, GatewayNode, Reply, compile_snapshot
from taut.serving.gateway.guard import Guard
from taut.serving.gateway.tensors import TensorDecoder
from taut.serving.snapshot import EndpointConfig, PreviousVersion
from taut.testing.serving import (
    DataPlane,
    matrix_model,
    matrix_signature,
    now_us,
    open_gateway,
    with_fields,
)


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def ask(gateway: Gateway, path: str, document: object, bearer: str) -> tuple[int, Any]:
    lines = [(b"authorization", b"Bearer " + bearer.encode())]

    async def run() -> Reply:
        found = gateway.answer("POST", path, lines, json.dumps(document).encode())
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    return reply.status, json.loads(reply.body)


def integers(width: int) -> ModelSignature:
    columns = tuple(Column(f"x{index}", DType.INT) for index in range(width))
    inputs = tuple(ModelInput(column=column) for column in columns)
    return ModelSignature(request=columns, inputs=inputs, output="probability", classes=(0, 1))


@pytest.mark.parametrize("value", [1e30, -1e30, 2.0**63, -(2.0**64)])
def test_a_whole_number_beyond_64_bits_in_a_matrix_is_the_callers_fault(
    gateway: Gateway, plane: DataPlane, value: float
) -> None:
    live = plane.served(matrix_model(2), integers(2))
    gateway.install(
        compile_snapshot(
            plane.snapshot(EndpointConfig(name="delay", live=live)), home=plane.home, before=None
        )
    )
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [value, 1.0]}

    status, answer = ask(gateway, "/v2/models/delay/infer", {"inputs": [tensor]}, plane.token())

    assert (status, answer["error"]["code"]) == (422, "invalid_input")
    assert "row 0, column 'x0'" in answer["error"]["message"]


@pytest.mark.parametrize("value", [-(2.0**63), 2.0**62, -0.0, 16777217.0])
def test_a_whole_number_of_64_bits_in_a_matrix_is_taken_exactly(value: float) -> None:
    decoder = TensorDecoder([Column("x", DType.INT)], outputs=["value"], max_rows=10)
    tensor = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [value]}

    batch = decoder.decode(json.dumps({"inputs": [tensor]}).encode()).batch

    assert batch.rows == [[int(value)]]
    with pytest.raises(InvalidInput):
        decoder.decode(json.dumps({"inputs": [{**tensor, "data": [0.5]}]}).encode())


def test_a_fallback_with_labels_of_another_kind_is_not_used(gateway: Gateway, plane: DataPlane) -> None:
    nan = plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3), version="delay@2")
    words = with_fields(matrix_signature(3), classes=("late", "on time"))
    other = plane.served(matrix_model(3), words, version="delay@1")
    endpoint = EndpointConfig(name="delay", live=nan, fallbacks=(PreviousVersion(model=other),))
    gateway.install(compile_snapshot(plane.snapshot(endpoint), home=plane.home, before=None))
    body = {"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}]}

    status, answer = ask(gateway, "/v2/models/delay/infer", body, plane.token())

    assert (status, answer["error"]["code"]) == (503, "bad_answer")


def test_a_snapshot_that_breaks_the_compiler_is_refused_and_the_next_is_heard(
    gateway: Gateway, plane: DataPlane
) -> None:
    node = GatewayNode(
        gateway, home=plane.home, name="gateway-0", store=plane.store, trust=plane.trust, random=SystemRandom()
    )  # fmt: skip
    odd = plane.endpoint()
    strange = with_fields(odd.live, signature=with_fields(odd.live.signature, event_time="nowhere"))
    broken = plane.sign(plane.snapshot(with_fields(odd, live=strange))).to_json()
    good = plane.sign(plane.snapshot(plane.endpoint())).to_json()

    async def run() -> list[Any]:
        return [await node.apply(data) for data in (broken, good)]

    acks = asyncio.run(run())

    assert [ack.applied for ack in acks] == [False, True]
    assert acks[0].reason


def test_one_bearer_written_in_many_ways_is_remembered_once(plane: DataPlane) -> None:
    active = compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None)
    guard = Guard(active)
    bearer = plane.token().encode()

    for spaces in range(1, 200):
        guard.identify(b"bearer" + b" " * spaces + bearer, now_us())

    assert len(guard._sessions) <= 1


def test_a_switch_that_was_made_is_told_so_also_when_it_cannot_be_kept_for_the_next_start(
    gateway: Gateway, plane: DataPlane
) -> None:
    node = GatewayNode(
        gateway, home=plane.home, name="gateway-0", store=plane.store, trust=plane.trust, random=SystemRandom()
    )  # fmt: skip
    (plane.home / "serving" / ".lock").unlink(missing_ok=True)
    (
        plane.home / "serving" / ".lock"
    ).mkdir()  # opening it fails, as it does when a process is out of descriptors

    ack = asyncio.run(node.apply(plane.sign(plane.snapshot(plane.endpoint())).to_json()))

    assert (ack.applied, ack.serving, ack.reason) == (True, 1, "")
