"""A release under way in a gateway: who is answered by which version, and what is counted of both."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.predictions import PredictionReader
from taut.serving.snapshot import ArmConfig, TrialConfig
from taut.serving.trials import (
    Side,
    Sketch,
    Trial,
    TrialReading,
    decode_trials,
    encode_trials,
    lots_of,
    unit_of,
)
from taut.serving.trials.split import first_of
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway

INSTANCE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}
SALT = "rel_delay_2"


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *, bias: float = 0.25, stage: int = 0, **how: Any) -> None:
    tried = plane.served(matrix_model(3, bias=bias), matrix_signature(3), version="delay@2")
    trial = TrialConfig(release=SALT, stage=stage, arms=(ArmConfig(model=tried, weight=0.5),))
    config = plane.endpoint(**how).with_trial(trial)
    snapshot = plane.snapshot(config)
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def ask(
    gateway: Gateway,
    plane: DataPlane,
    subject: str,
    path: str = "/v1/predict/delay",
    instance: Any = INSTANCE,
) -> Reply:
    async def run() -> Reply:
        lines = [(b"authorization", b"Bearer " + plane.token("ana", jti="ana").encode())]
        lines += [(b"taut-subject", subject.encode())] if subject else []
        body: Any = {"instances": [instance]}
        if path.startswith("/v2"):
            body = {"inputs": [{"name": n, "shape": [1], "datatype": "FP32", "data": [x]} for n, x in instance.items()]}  # fmt: skip
        found = gateway.answer("POST", path, lines, json.dumps(body).encode())
        return await found if inspect.isawaitable(found) else found

    return asyncio.run(run())


def canaries(count: int) -> list[bool]:
    return [drawn(SALT, unit_of("ana", f"s{at}"), 0.5, 0.5) == 1 for at in range(count)]


def drawn(salt: str, unit: str, *weights: float) -> int:
    """Return to which slot a unit is drawn; one whose weight is 0 is not there."""
    sides = [Side(slot, weight, None, None) for slot, weight in enumerate(weights) if weight]
    return first_of(lots_of(salt, unit)[0], sides).slot


def test_a_part_of_the_callers_is_answered_by_the_canary_and_each_always_by_the_same(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    for _ in range(2):
        found = [b"taut-model-version: delay@2" in ask(gateway, plane, f"s{at}").head for at in range(20)]
        assert found == canaries(20)
    (reading,) = gateway.trials.reading()
    assert (reading.release, reading.stage) == ("rel_delay_2", 0)
    assert [len(one) for one in reading.seen] == [sum(canaries(20)), 20 - sum(canaries(20))]
    assert reading.answers == (2 * sum(canaries(20)), 40 - 2 * sum(canaries(20)))
    assert reading.failed == {}
    assert [len({mark // 16 for mark in one}) for one in reading.scored] == [len(one) for one in reading.seen]
    assert decode_trials(encode_trials([reading])) == (reading,)
    install(gateway, plane)  # another epoch of the same stage
    assert gateway.trials.reading() == (reading,)


def test_who_names_the_version_gets_it_and_is_not_counted(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane)
    for at in range(8):
        reply = ask(gateway, plane, f"s{at}", "/v2/models/delay/versions/1/infer")
        assert b"taut-model-version: delay@1" in reply.head
    assert gateway.trials.reading()[0].seen == ((), ())
    assert b"taut-model-version: delay@" in ask(gateway, plane, "", "/v2/models/delay/infer").head


def test_only_records_of_callers_who_were_drawn_to_a_version_are_evidence_of_a_trial(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, stage=3)
    ask(gateway, plane, "s0", "/v2/models/delay/versions/1/infer")
    ask(gateway, plane, "s0", "/v2/models/delay/versions/1/infer", instance={"x0": "no number"})
    drawn_to = ask(gateway, plane, "s0")
    ask(gateway, plane, "s0", instance={"x0": "no number"})
    asyncio.run(gateway.outcomes._log.synced())
    heads = [one.head for one in PredictionReader(plane.home / "log" / "predictions").records()]
    assert [(one.trial, one.share, one.stage) for one in heads] == [("", 0.0, 0)] * 2 + [(SALT, 0.5, 3)] * 2
    assert drawn_to.status == 200


def test_a_canary_that_fails_is_counted_by_unit_and_minute_and_the_live_version_is_not(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, bias=math.nan)
    for _ in range(3):  # a storm of repetitions is the same few units
        statuses = [ask(gateway, plane, f"s{at}").status for at in range(20)]
        assert statuses == [503 if canary else 200 for canary in canaries(20)]
    (reading,) = gateway.trials.reading()
    failed = [set(one) for one in zip(*reading.failed.values(), strict=True)]
    units = {mark for marks in failed[0] for mark in marks}
    assert len(units) == sum(canaries(20))
    assert set(failed[1]) == {()}
    assert reading.fatal == (3 * sum(canaries(20)), 0)


def test_an_answer_of_a_stand_in_is_a_failure_of_the_version_that_it_stands_in_for(
    gateway: Gateway, plane: DataPlane
) -> None:
    from taut.serving.snapshot import PreviousVersion

    before = plane.served(matrix_model(3), matrix_signature(3), version="delay@0")
    install(gateway, plane, bias=math.nan, fallbacks=(PreviousVersion(model=before),))
    assert {ask(gateway, plane, f"s{at}").status for at in range(20)} == {200}
    (reading,) = gateway.trials.reading()
    assert sum(len(one[0]) for one in reading.failed.values()) >= sum(canaries(20))


def test_a_new_stage_counts_anew_and_the_last_words_of_the_one_before_are_kept(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane)
    ask(gateway, plane, "s1")
    install(gateway, plane, stage=1)
    ask(gateway, plane, "s2")
    before, now = gateway.trials.reading()
    assert (before.stage, sum(before.answers), now.stage, sum(now.answers)) == (0, 1, 1, 1)
    gateway.install(
        compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=gateway.active)
    )
    assert gateway.trials.reading() == ()
    assert b"delay@1" in ask(gateway, plane, "s1").head


def test_a_weight_that_grows_takes_nobody_back() -> None:
    units = [f"u{at}" for at in range(2_000)]
    few, some = ({one for one in units if drawn("salt", one, 1 - part, part)} for part in (0.05, 0.25))
    assert few <= some
    assert len(some) == pytest.approx(500, abs=80)
    both = sum(drawn("salt", one, 1, 1) and drawn("another", one, 1, 1) for one in units)
    assert both == pytest.approx(500, abs=80)


def test_several_versions_answer_their_weights_and_who_stays_with_his_is_moved_by_nobody() -> None:
    units = [f"u{at}" for at in range(4_000)]
    before = [drawn("salt", one, 0.4, 0.3, 0.2, 0.1) for one in units]
    assert [before.count(slot) / 4_000 for slot in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.03)
    stopped = [drawn("salt", one, 0.5, 0.375, 0.0, 0.125) for one in units]  # the others keep their ratios
    assert all(one == two for one, two in zip(before, stopped, strict=True) if one != 2)
    grown = [drawn("salt", one, 0.32, 0.24, 0.36, 0.08) for one in units]
    assert all(two in (one, 2) for one, two in zip(before, grown, strict=True))


def test_samples_of_gateways_put_together_are_the_sample_of_all() -> None:
    marks = [(lots_of("salt", f"u{at}")[1], at % 10 == 0) for at in range(300)]
    whole, parts, union = Sketch(32), [Sketch(32), Sketch(32)], Sketch(32)
    for at, (mark, canary) in enumerate(marks):
        whole.add(mark, canary)
        parts[at % 2].add(mark, canary)
        parts[0].add(mark, canary)
    for part in parts:
        for mark, canary in part.marks.items():
            union.add(mark, canary)
    assert union.arms() == whole.arms()
    assert sum(len(one) for one in whole.arms()) == 32


def test_only_the_last_minutes_of_failures_are_told() -> None:
    trial = Trial("rel", 0)
    for minute in range(6):
        trial.fail(minute, True, code="unavailable", now_us=minute * 60_000_000)
    assert trial.reading() == TrialReading(
        release="rel", stage=0, failed={minute: ((minute,), ()) for minute in (3, 4, 5)}
    )


def test_what_is_no_reading_is_refused_and_nothing_told_is_nothing() -> None:
    assert decode_trials(b"null") == ()
    with pytest.raises(Corrupt):
        decode_trials(b'[{"release": 1}]')
