"""Logged requests are asked again as they were asked, with the features that were found then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from taut.core.refs import VersionRef
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.serving.predictions import Answer, FeatureRow, Lookup, PredictionRecord, RecordHead
from taut.workflows.replay import Replay, replay_of

SIGNATURE = ModelSignature(
    request=(Column("origin", DType.STRING), Column("hour", DType.INT)),
    inputs=(
        ModelInput(column=Column("hour", DType.INT)),
        ModelInput(column=Column("wind", DType.FLOAT, nullable=True), feature_set="sky"),
    ),
    lookups=(FeatureLookup(feature_set="sky", entity=("origin",), keys=("origin",)),),
    output="probability", classes=(False, True),
)  # fmt: skip
LIVE = VersionRef("delay", 1)
HEAD = RecordHead(
    endpoint="delay", version="delay@1", release="r", epoch=1, columns=("origin", "hour"), lookups=(Lookup("sky", ("wind",)),)
)  # fmt: skip


def record(number: int, **changes: Any) -> bytes:
    wind = None if number % 3 == 0 else FeatureRow("m", 0, (float(number),))
    values: dict[str, Any] = {
        "request_id": f"req_{number:026d}", "time_us": number, "head": HEAD, "principal": "p", "subject": "", "status": 200,
        "guard_us": 1, "rows": (("JFK", number),), "features": ((wind,),),
        "answer": Answer(labels=(True,), probabilities=((0.1, 0.9),)),
    }  # fmt: skip
    return msgspec.msgpack.encode(PredictionRecord(**{**values, **changes}))


def rooms(*segments: list[bytes], theirs: ModelSignature = SIGNATURE) -> Any:
    log = SimpleNamespace(
        segments=lambda: list(range(len(segments))), payloads=lambda segment: segments[segment], path=Path()
    )
    return SimpleNamespace(predictions=log, registry=SimpleNamespace(signature=lambda ref: theirs))


def test_the_newest_answers_of_the_live_version_come_with_their_features() -> None:
    other = msgspec.structs.replace(HEAD, version="delay@0")
    noise = [record(90, status=503), record(91, fallback="default"), record(92, head=other)]
    found = replay_of(
        rooms([record(n) for n in range(10)], [record(n) for n in range(10, 20)] + noise),
        LIVE,
        SIGNATURE,
        rows=12,
    )

    assert isinstance(found, Replay)
    assert found.rows["hour"].to_list() == [*range(19, 9, -1), 9, 8]
    assert found.rows["wind"].to_list() == [
        None if n % 3 == 0 else float(n) for n in [*range(19, 9, -1), 9, 8]
    ]
    assert np.array_equal(found.live, [[0.1, 0.9]] * 12)


def test_traffic_that_cannot_be_compared_says_why() -> None:
    few = replay_of(rooms([record(1)]), LIVE, SIGNATURE, rows=100)
    further = ModelInput(column=Column("snow", DType.FLOAT, nullable=True), feature_set="sky")
    wider = msgspec.structs.replace(SIGNATURE, inputs=(*SIGNATURE.inputs, further))
    unknown = replay_of(rooms([record(n) for n in range(20)]), LIVE, wider, rows=100)
    words = msgspec.structs.replace(SIGNATURE, classes=("no", "yes"))
    classes = replay_of(rooms([record(n) for n in range(20)], theirs=words), LIVE, SIGNATURE, rows=100)

    assert "1 answers of delay@1 are in the log" in str(few)
    assert "the candidate needs snow" in str(unknown)
    assert "other classes" in str(classes)
