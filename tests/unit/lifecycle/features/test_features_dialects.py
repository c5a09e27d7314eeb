"""The tables of feature sets on both databases, with several who build at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from taut.core.errors import NotFound
from taut.core.schema import Column, DType, Schema
from taut.lifecycle.features import Materialisation, OnlineState, metadata, rows
from taut.lifecycle.features.rows import Trace
from taut.ports.records import Records, Tx, transact
from taut.ports.tables import TableManifest
from taut.project.manifest import FeaturesSpec, FunctionRef

AT = datetime(2013, 1, 1, tzinfo=UTC)
SPEC = FeaturesSpec(
    name="departure",
    entity=("airport",),
    event_time="hour",
    sources=("weather",),
    function=FunctionRef("a", "b"),
)
SCHEMA = Schema(
    (
        Column("airport", DType.STRING),
        Column("hour", DType.DATETIME),
        Column("wind", DType.FLOAT, nullable=True),
    )
)
MADE = Materialisation(
    id="departure@1", spec=SPEC, inputs_digest="sha256:" + "0" * 64, sources={"weather": "snapshot:weather@1"},
    bundle="sha256:" + "1" * 64, manifest=TableManifest(schema=SCHEMA), digest="sha256:" + "2" * 64, entities=3,
    future_rows=2**40, event_time_min=datetime(1900, 1, 1, tzinfo=UTC), event_time_max=AT, created_at=AT,
    created_by="alice",
)  # fmt: skip


def test_what_was_kept_reads_back_the_same(open_records: Callable[..., Records]) -> None:
    records = open_records(metadata)
    with records.begin() as tx:
        rows.insert_materialisation(tx, MADE)
        state = OnlineState(
            materialisation="departure@1", entities=3, event_time_max=AT, written_at=AT,
            unfinished=(Trace(materialisation="departure@2", at=AT + timedelta(microseconds=1)),),
        )  # fmt: skip
        rows.set_online_state(tx, "departure", state)
        rows.set_online_state(tx, "departure", state)
        rows.set_online_state(tx, "empty", OnlineState(written_at=AT))
    with records.read() as tx:
        assert rows.pick_materialisation(tx, "departure", None) == MADE
        assert rows.pick_materialisation(tx, "departure", "departure@1").features == ("wind",)
        assert rows.find_by_inputs(tx, "departure", MADE.inputs_digest) == MADE
        assert rows.find_by_inputs(tx, "departure", "sha256:" + "9" * 64) is None
        assert rows.get_online_state(tx, "departure") == state
        assert rows.get_online_state(tx, "empty") == OnlineState(written_at=AT)
        assert rows.get_online_state(tx, "absent") is None
        assert rows.list_feature_sets(tx) == ("departure",)
        with pytest.raises(NotFound):
            rows.pick_materialisation(tx, "other", "departure@1")


def test_builds_at_once_get_numbers_without_a_gap_or_a_double(open_records: Callable[..., Records]) -> None:
    records = open_records(metadata)

    def build(tx: Tx) -> None:
        number = rows.next_number(tx, "departure")
        rows.insert_materialisation(tx, msgspec.structs.replace(MADE, id=f"departure@{number}"))

    threads = [
        threading.Thread(target=transact, args=(records, build), kwargs={"attempts": 50}) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with records.read() as tx:
        found = rows.list_materialisations(tx, "departure", limit=10)
    assert [made.id for made in found] == [f"departure@{number}" for number in range(6, 0, -1)]
