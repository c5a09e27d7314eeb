"""Results: chunks kept once, versions whole, rows found by their key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.tables.parquet import ParquetTables
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.refs import Kind, Ref
from taut.core.schema import Column, DType, Schema
from taut.lifecycle.batch import Chunk, NewResult, ResultInfo, Results, Scored, metadata
from taut.ports.records import transact
from taut.ports.tables import ROW_ID, TableManifest
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_metadata

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = (Column("order", DType.INT), Column("at", DType.DATETIME))
ANSWERS = Schema((*KEYS, Column("value", DType.FLOAT)))
REJECTS = Schema(
    (*(Column(key.name, key.dtype, nullable=True) for key in KEYS), Column("reasons", DType.STRING))
)
SCORED = Scored(
    name="scores", version="late@1", artifact="sha256:a", snapshot="orders@1", features={"load": "load@2"}
)


class Room(NamedTuple):
    results: Results
    tables: ParquetTables
    records: MemoryRecords
    ledger: Ledger
    lineage: Lineage
    clock: ManualClock


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    records = memory_records(metadata, ledger_metadata, lineage_metadata)
    clock = ManualClock(AT)
    keys = FileKeys(tmp_path / "keys", random=SeededRandom())
    ledger, lineage = Ledger(records, keys, clock, SequenceIds(), origin="test"), Lineage(clock)
    tables = ParquetTables(LocalBlobs(tmp_path / "blobs"))
    yield Room(
        Results(records=records, tables=tables, ledger=ledger, lineage=lineage, clock=clock),
        tables, records, ledger, lineage, clock,
    )  # fmt: skip
    records.close()


def chunk(room: Room, first: int, rows: int, *, rejected: int = 0) -> Chunk:
    """Rows `first` and following: the order is ten times the row id, the value a hundredth of it."""
    ids = range(first, first + rows)
    answers = pl.DataFrame(
        {
            ROW_ID: list(ids), "order": [10 * row for row in ids], "at": [AT + timedelta(hours=row) for row in ids],
            "value": [row / 100 for row in ids],
        }
    )  # fmt: skip
    late = range(first + rows, first + rows + rejected)
    rejects = pl.DataFrame(
        {ROW_ID: list(late), "order": [10 * row for row in late], "at": [AT for _ in late], "reasons": ["null"] * rejected}
    )  # fmt: skip
    made = [
        room.tables.write([frame], schema=schema, first_row_id=0).files if frame.height else ()
        for frame, schema in ((answers, ANSWERS), (rejects, REJECTS))
    ]
    return Chunk(files=made[0], rejects=made[1], reasons={"null": rejected} if rejected else {})


def new(scored: Scored = SCORED, *, work: str = "w", max_age_s: float | None = None) -> NewResult:
    return NewResult(
        scored=scored, endpoint="late", release="rel_1", manifest=TableManifest(schema=ANSWERS),
        rejects=TableManifest(schema=REJECTS), reasons={}, keys=("order", "at"), entity=("order",), work=work,
        as_of=AT, max_age_s=max_age_s,
    )  # fmt: skip


def commit(room: Room, result: NewResult, rows: int) -> ResultInfo:
    return transact(room.records, lambda tx: room.results.commit(tx, result, rows=rows, actor="ann"))


def test_a_result_has_its_chunks_in_order_its_leaf_and_its_lineage(room: Room) -> None:
    room.results.keep_chunk("w", 1, chunk(room, 3, 2))
    room.results.keep_chunk("w", 0, chunk(room, 0, 2, rejected=1))

    info = commit(room, new(), 5)

    assert (str(info.version), info.rows, info.rejected) == ("scores@1", 4, 1)
    assert room.results.scan(info, row_ids=True).collect()[ROW_ID].to_list() == [0, 1, 3, 4]
    assert room.results.rejects(info).collect()[ROW_ID].to_list() == [2]
    assert [leaf.subject for leaf in room.ledger.show(kind="batch.scored")] == ["result:scores@1"]
    with room.records.read() as tx:
        (step,) = room.lineage.why(tx, Ref(Kind.RESULT, "scores@1")).steps
    assert {str(node.ref) for node in step.inputs} == {
        "snapshot:orders@1", "model:late@1", "features:load@2", "release:rel_1",
    }  # fmt: skip
    assert room.results.chunks("w") == {}


def test_a_chunk_is_kept_once_whoever_comes_second(room: Room) -> None:
    first = chunk(room, 0, 2)
    room.results.keep_chunk("w", 0, first)

    room.results.keep_chunk("w", 0, chunk(room, 7, 3))

    assert room.results.chunks("w") == {0: first}


def test_chunks_that_do_not_have_every_row_are_no_result(room: Room) -> None:
    room.results.keep_chunk("w", 0, chunk(room, 0, 2))

    with pytest.raises(Conflict, match="2 of 3 rows"):
        commit(room, new(), 3)
    assert room.ledger.show(kind="batch.scored") == ()
    assert list(room.results.chunks("w")) == [0]


def test_versions_of_a_name_count_up_and_inputs_are_found_again(room: Room) -> None:
    other = msgspec.structs.replace(SCORED, snapshot="orders@2")
    for work, scored in (("w", SCORED), ("v", other)):
        room.results.keep_chunk(work, 0, chunk(room, 0, 1))
        commit(room, new(scored, work=work), 1)

    assert [str(info.version) for info in room.results.list()] == ["scores@2", "scores@1"]
    assert str(room.results.show("scores").version) == "scores@2"
    assert str(room.results.show("scores", 1).version) == "scores@1"
    found = room.results.of(other)
    assert found is not None
    assert str(found.version) == "scores@2"
    assert room.results.of(msgspec.structs.replace(SCORED, version="late@2")) is None
    with pytest.raises(NotFound, match="no result 'scores@3'"):
        room.results.show("scores", 3)
    with pytest.raises(NotFound, match="no result 'nothing'"):
        room.results.show("nothing")


def test_rows_are_found_by_key_by_time_and_by_row_id(room: Room) -> None:
    room.results.keep_chunk("w", 0, chunk(room, 0, 50, rejected=1))
    info = commit(room, new(), 51)

    for key in (
        {"order": 70},
        {"": "70"},
        {"at": "2026-01-01T07:00:00Z"},
        {ROW_ID: 7},
        {"order": "70", ROW_ID: "7"},
    ):
        (row,) = room.results.get(info, key).rows
        assert (row[ROW_ID], row["order"], row["value"]) == (7, 70, 0.07)
    found = room.results.get(info, {"order": 500})
    assert found.rows == ()
    assert [row["reasons"] for row in found.rejects] == ["null"]
    assert room.results.get(info, {"order": 1}) == room.results.get(info, {"order": 3})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({}, "nothing"), ({"value": 1}, "'value' names no row"), ({"order": "x"}, "is no int"), ({"at": "soon"}, "is no datetime"),
        ({ROW_ID: -1}, "is no int"),
    ],
)  # fmt: skip
def test_a_key_that_is_none_is_refused(room: Room, key: dict[str, str | int], said: str) -> None:
    room.results.keep_chunk("w", 0, chunk(room, 0, 1))
    info = commit(room, new(), 1)

    with pytest.raises(InvalidInput, match=said):
        room.results.get(info, key)


def test_a_result_is_fresh_as_long_as_was_promised(room: Room) -> None:
    room.results.keep_chunk("w", 0, chunk(room, 0, 1))
    info = commit(room, new(max_age_s=60.0), 1)

    assert info.fresh_at(AT + timedelta(seconds=60))
    assert not info.fresh_at(AT + timedelta(seconds=61))


def test_a_result_of_no_rows_is_one_too(room: Room) -> None:
    info = commit(room, new(), 0)

    assert room.results.scan(info).collect().height == 0
    assert room.results.get(info, {"order": 1}).rows == ()
