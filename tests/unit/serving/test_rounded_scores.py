"""Scores leave rounded where an endpoint says so; the record has them whole."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.rounding import Rounding, rounding_of
from taut.serving.predictions import PredictionReader
from taut.serving.runtime import Outputs
from taut.testing.serving import DataPlane, open_gateway

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def ask(gateway: Gateway, plane: DataPlane, who: str = "ana", path: str = "/v1/predict/delay") -> Any:
    async def run() -> Reply:
        lines = [(b"authorization", b"Bearer " + plane.token(who, jti=who).encode())]
        body: Any = {"instances": [INSTANCE]}
        if path.startswith("/v2"):
            columns = [
                {"name": name, "shape": [1], "datatype": "FP32", "data": [x]} for name, x in INSTANCE.items()
            ]
            body = {"inputs": columns}
        found = gateway.answer("POST", path, lines, json.dumps(body).encode())
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def install(gateway: Gateway, plane: DataPlane, **how: Any) -> None:
    gateway.install(
        compile_snapshot(plane.snapshot(plane.endpoint(**how)), home=plane.home, before=gateway.active)
    )


def test_everybodys_scores_are_rounded_in_every_form_and_the_record_has_them_whole(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    whole = ask(gateway, plane)["predictions"][0]
    install(gateway, plane, round_scores=1)
    rounded = ask(gateway, plane)["predictions"][0]
    tensors = {
        one["name"]: one["data"] for one in ask(gateway, plane, path="/v2/models/delay/infer")["outputs"]
    }

    assert rounded == {"label": whole["label"], "probability": round(whole["probability"], 1)}
    assert rounded["probability"] != whole["probability"]
    assert tensors["probability"] == [pytest.approx(1 - rounded["probability"]), rounded["probability"]]
    records = list(PredictionReader(plane.home / "log" / "predictions").records())
    assert len(records) == 3
    assert {record.answer.probabilities[0][1] for record in records} == {whole["probability"]}


def test_only_suspects_are_rounded_where_only_they_are_to_be(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, round_suspects=0, suspects=("ben",))
    ana, ben = (ask(gateway, plane, who)["predictions"][0] for who in ("ana", "ben"))
    assert ben["probability"] == round(ana["probability"])
    assert ben["label"] == ana["label"]
    assert 0 < ana["probability"] < 1


def test_nobody_pays_for_what_is_not_declared_and_suspects_never_see_more_than_others(
    plane: DataPlane,
) -> None:
    assert rounding_of(plane.endpoint()) is None
    assert rounding_of(plane.endpoint(round_suspects=1)) is None
    both = rounding_of(plane.endpoint(round_scores=1, round_suspects=3, suspects=("eve",)))
    assert both is not None
    two = Outputs(labels=[1], probabilities=[[0.45678, 0.54322]])
    assert both.rounded(two, "eve") == both.rounded(two, "ana")


def test_values_keep_the_digits_that_count_and_several_classes_are_rounded_each() -> None:
    by = Rounding(everybody=2, suspects=frozenset(), to=None)
    assert by.rounded(Outputs(values=[123.456, -0.0012345, 0.0]), "ana").values == [120.0, -0.0012, 0.0]
    three = Outputs(labels=["a"], probabilities=[[0.3333, 0.3333, 0.3334]])
    assert by.rounded(three, "ana").probabilities == [[0.33, 0.33, 0.33]]
    assert by.rounded(three, "ana").labels == ["a"]
