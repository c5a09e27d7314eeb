"""What a batch is about, once pinned: by the model's signature, whatever was declared since."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest

from taut.core.schema import Column, DType, FeatureLookup, Schema
from taut.core.units import parse_duration
from taut.lifecycle.batch import Scored
from taut.lifecycle.features import LoadedFeatures, Materialisation
from taut.ports.tables import TableManifest
from taut.project.manifest import FeaturesSpec, FunctionRef
from taut.workflows.batch import BATCH_GATE
from taut.workflows.batch_pin import Batch, joined_as_signed

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def made(max_age: str | None) -> Materialisation:
    schema = Schema(
        (
            Column("airport", DType.STRING),
            Column("hour", DType.DATETIME),
            Column("wind", DType.FLOAT, nullable=True),
        )
    )
    return Materialisation(
        id="weather@1",
        spec=FeaturesSpec(
            name="weather", entity=("airport",), event_time="hour", sources=("w",), max_age=max_age,
            function=FunctionRef("project", "weather"),
        ),
        inputs_digest="", sources={}, bundle="", manifest=TableManifest(schema=schema), digest="", entities=1,
        future_rows=0, event_time_min=NOON, event_time_max=NOON, created_at=NOON, created_by="ann",
    )  # fmt: skip


@pytest.mark.parametrize("declared", [None, "1h", "30d"])
@pytest.mark.parametrize(("signed_s", "wind"), [(None, 5.0), (3 * 3600.0, 5.0), (3600.0, None)])
def test_features_are_as_old_as_the_signature_allows_whatever_is_declared_now(
    declared: str | None, signed_s: float | None, wind: float | None
) -> None:
    lookup = FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",), max_age_s=signed_s)
    rows = pl.DataFrame({"airport": ["EWR"], "hour": [NOON], "wind": [5.0]}, schema_overrides={"hour": TIME})
    flight = pl.DataFrame({"origin": ["EWR"], "at": [NOON.replace(hour=14)]}, schema_overrides={"at": TIME})

    joined = LoadedFeatures([joined_as_signed(made(declared), lookup)], [rows]).join(flight, "at")

    assert joined["wind"].to_list() == [wind]
    age = joined_as_signed(made(declared), lookup).materialisation.spec.max_age
    assert (None if age is None else parse_duration(age).total_seconds()) == signed_s


def test_the_same_work_has_one_name_and_anything_else_another() -> None:
    scored = Scored(
        name="s", version="late@1", artifact="a", snapshot="orders@1", features={"load": "load@1"}
    )
    batch = Batch(scored=scored, rows=10, actor="ann")

    assert batch.work == msgspec.structs.replace(batch, actor="ben", max_age_s=3.0, endpoint="late").work
    others = [
        msgspec.structs.replace(batch, chunk_rows=7),
        *(
            msgspec.structs.replace(batch, scored=msgspec.structs.replace(scored, **change))
            for change in (
                {"name": "t"}, {"version": "late@2"}, {"artifact": "b"}, {"snapshot": "orders@2"}, {"features": {"load": "load@2"}},
            )
        ),
    ]  # fmt: skip
    assert len({batch.work, *(other.work for other in others)}) == 1 + len(others)


def test_the_gate_of_a_batch_rejects_what_lacks_a_check() -> None:
    from taut.core.evidence import Check, Evidence, Outcome

    names = sorted(BATCH_GATE.required)
    assert names == ["approved", "rows", "verified"]
    for missing in names:
        checks = tuple(Check(name=name, outcome=Outcome.PASSED) for name in names if name != missing)
        verdict = BATCH_GATE.judge(Evidence(subject="model:late@1", checks=checks))
        assert not verdict.admitted
        assert missing in verdict.reasons[0]
